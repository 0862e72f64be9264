"""The site's own tools."""

from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"

pytestmark = pytest.mark.skipif(
    not DOCS.is_dir(), reason="docs/ is part of a checkout only"
)


def test_dead_links_and_anchors_of_a_site_are_found(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    import check_links

    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a b.html").write_text(
        "<h1 id=here>A</h1><a href='../index.html#top'>up</a>"
        "<a href='../index.html#there'>down</a><a href='#nowhere'>1</a>"
    )
    (tmp_path / "index.html").write_text(
        "<p id=there><a href='sub/a%20b.html#here'>A</a><a href='#there'>B</a>"
        "<a href='https://example.org/x#y'>C</a><a href='mailto:a@b'>D</a>"
        "<img src='no.png'><a href='sub/a%20b.html#gone'>E</a>"
    )
    dead = {(path.name, link) for path, link in check_links.dead_links(tmp_path)}
    assert dead == {
        ("a b.html", "#nowhere"),
        ("index.html", "no.png"),
        ("index.html", "sub/a%20b.html#gone"),
    }
    with pytest.raises(SystemExit, match=r"index\.html: no\.png"):
        check_links.main(tmp_path)
