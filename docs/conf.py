"""Settings of the site; ``make docs`` builds it."""

import importlib
import inspect
import os
import pkgutil
import re
import sys
import warnings
from pathlib import Path

# The tutorials run in this process. Small networks are fastest on one thread, and it
# must be said before Torch is imported for threads that come later to follow.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import skmeta  # noqa: E402

project = "skmeta"
author = "skmeta developers"
copyright = f"2026, {author}"
version = release = skmeta.__version__

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))
extensions = [
    "mathml",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_extensions", "**/GALLERY_HEADER.rst"]
suppress_warnings = ["config.cache"]  # the gallery's settings hold a function

html_math_renderer = "mathml"
html_theme = "pydata_sphinx_theme"
html_title = html_short_title = "skmeta"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_copy_source = False
html_show_sourcelink = False
html_sidebars = {"index": [], "install": [], "changelog": [], "origin": []}
html_theme_options = {
    "logo": {"text": "skmeta"},
    "header_links_before_dropdown": 6,
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "show_nav_level": 2,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
    "footer_start": ["copyright"],
    "footer_center": [],
    "footer_end": ["theme-version"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Links to other projects need the network, and a build must not: they are made only
# where it is asked for, SKMETA_DOCS_INTERSPHINX=1 make docs. Without, the same names
# are plain text.
intersphinx_mapping = {}
if os.environ.get("SKMETA_DOCS_INTERSPHINX") == "1":
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "sklearn": ("https://scikit-learn.org/stable", None),
        "skorch": ("https://skorch.readthedocs.io/en/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }

# The class template lists methods itself.
numpydoc_show_class_members = False


def run_strictly(gallery_conf, fname, when):
    """A warning of Python's fails a tutorial, and the next one starts afresh."""
    if when == "before":
        run_strictly.filters = warnings.filters[:]
        warnings.simplefilter("error")
    else:
        warnings.filters[:] = run_strictly.filters


sphinx_gallery_conf = {
    "examples_dirs": "../examples/tutorials",
    "gallery_dirs": "auto_examples",
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("skmeta",),
    "reference_url": {"skmeta": None},
    "within_subsection_order": "FileNameSortKey",
    "reset_modules": ("matplotlib", run_strictly),
    "reset_modules_order": "both",
    "image_srcset": ["2x"],
    "download_all_examples": False,
    "write_computation_times": False,
    "show_signature": False,
    "remove_config_comments": True,
    "min_reported_time": 1,
}


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
        f"{title}\n{'=' * len(title)}",
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
