"""Settings of the site; ``make docs`` builds it."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import skmeta

project = "skmeta"
author = "skmeta developers"
copyright = f"2026, {author}"
version = release = skmeta.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
html_theme = "pydata_sphinx_theme"

# The class template lists methods itself.
numpydoc_show_class_members = False


def public_modules():
    """Modules that declare ``__all__``, the package itself first."""
    yield skmeta
    for info in pkgutil.walk_packages(skmeta.__path__, "skmeta."):
        if not re.search(r"\._", info.name):
            module = importlib.import_module(info.name)
            if getattr(module, "__all__", None):
                yield module


def page(title, names):
    """One page: the module's docstring and a table of ``names``."""
    lines = [
        title,
        "=" * len(title),
        f".. automodule:: {title}\n   :no-members:",
        f".. currentmodule:: {title}",
        ".. autosummary::\n   :toctree: objects\n",
    ]
    return "\n\n".join(lines) + "".join(f"\n   {name}" for name in names) + "\n"


def documented(module):
    """The classes and functions among the public names of ``module``."""
    public = {name: getattr(module, name) for name in module.__all__}
    return {
        name: value
        for name, value in sorted(public.items())
        if inspect.isclass(value) or inspect.isroutine(value)
    }


def write_api(folder):
    """Write one page per public module; a name is listed where it is met first."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.rglob("*.rst"):
        old.unlink()
    seen = set()
    for module in public_modules():
        public = documented(module)
        new = [name for name, value in public.items() if value not in seen]
        seen.update(public.values())
        if new:
            text = page(module.__name__, new)
            (folder / f"{module.__name__}.rst").write_text(text)


def skip_member(app, what, name, obj, skip, options):
    """Leave out what scikit-learn documents, and what it makes for routing."""
    foreign = (getattr(obj, "__module__", None) or "").startswith("sklearn.")
    return True if foreign or re.fullmatch(r"set_\w+_request", name) else None


def escape_shapes(app, what, name, obj, options, lines):
    """Keep ``*features`` and ``n_features_in_`` in a shape from being markup."""
    lines[:] = [
        re.sub(r"\*(?=\w)|_(?=[,)])", r"\\\g<0>", line)
        if "of shape (" in line
        else line
        for line in lines
    ]


def setup(app):
    """Sphinx calls this before it looks for pages."""
    write_api(Path(app.srcdir, "generated"))
    app.connect("autodoc-skip-member", skip_member)
    app.connect("autodoc-process-docstring", escape_shapes, priority=400)
