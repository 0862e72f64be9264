"""Formulas as MathML, which browsers draw by themselves: no script and no network."""

from docutils.nodes import SkipNode
from latex2mathml.converter import convert


def inline(self, node):
    """Write a formula within a line."""
    self.body.append(convert(node.astext()))
    raise SkipNode


def block(self, node):
    """Write a formula on lines of its own."""
    self.body.append('<div class="formula">')
    self.body.append(convert(node.astext(), display="block"))
    self.body.append("</div>\n")
    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
