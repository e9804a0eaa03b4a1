"""Markdown of users, as HTML that is nothing but what its marks say."""

from __future__ import annotations

from typing import Final

from markdown_it import MarkdownIt
from markupsafe import Markup

from dbnd.plugins import web_url


class _Parser(MarkdownIt):
    def validateLink(self, url: str) -> bool:  # noqa: N802  the library calls it so
        return web_url(url) is not None


# No HTML of the text's own, and no images: they would be fetched from where the text says.
_MARKDOWN: Final = _Parser("commonmark", {"html": False, "maxNesting": 20}).enable("table").disable("image")


LONGEST: Final = 1 << 16
"""Characters of a text that are shown: the parser may take a second for 20,000."""


def markdown_html(text: str) -> Markup:
    """``text`` as HTML; whatever in it is HTML is shown as text, and links lead to the web alone."""
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    return Markup(_MARKDOWN.render(shown))  # noqa: S704  it escapes all but its own marks
