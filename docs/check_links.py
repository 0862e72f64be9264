"""Every link inside a built site, and every anchor, leads somewhere.

python docs/check_links.py docs/_build/html
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """Where a page links to, and what it can be linked at."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = set(), {"", "top"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = {name: value or "" for name, value in attrs}
        self.anchors |= {attrs[key] for key in ("id", "name") if key in attrs}
        self.links |= {attrs[key] for key in ("href", "src") if key in attrs}


def dead_links(root):
    """Yield the page and the link of everything that leads nowhere."""
    pages = {path.resolve(): Page(path) for path in root.rglob("*.html")}
    for path, page in pages.items():
        if "_static" in path.parts:  # templates of the theme, not pages
            continue
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path
            if parts.path:
                target = (path.parent / unquote(parts.path)).resolve()
            if target.is_dir():
                target /= "index.html"
            known = pages.get(target)
            if not target.exists() or (
                known and unquote(parts.fragment) not in known.anchors
            ):
                yield path, link


def main(root):
    root = Path(root).resolve()
    dead = [f"{path.relative_to(root)}: {link}" for path, link in dead_links(root)]
    if dead:
        raise SystemExit("\n".join(["dead links:", *dead]))
    print(f"{len(list(root.rglob('*.html')))} pages, no dead link")


if __name__ == "__main__":
    main(sys.argv[1])
