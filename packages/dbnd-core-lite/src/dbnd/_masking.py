"""Keeping secrets out of params, logs, errors and tables."""

from __future__ import annotations

import re
from typing import Final

MASK: Final = "***"

_WORDS = (
    r"secret|password|passwd|private[_-]?key|access[_-]?key|api[_-]?key|aws[_-]?key|token(?![a-z])|authorization"
    r"|passphrase|credential"
)
# "token", but not the "tokenizer" and the "max_tokens" of language models.
_NAME = re.compile(_WORDS, re.IGNORECASE)
# "password=x", "token: x", '"api_key": "x"' and "Authorization: Bearer x", up to the end of the word.
_IN_TEXT = re.compile(
    rf"""((?:{_WORDS}|aws:iam:)[\w-]*["']?\s*[=:]\s*["']?(?:bearer\s+|basic\s+)?)[^\s"',;&)\]}}]+""", re.IGNORECASE
)
_USERINFO = re.compile(r"((?:[a-z][a-z0-9+.-]*:)?//)[^/?#\s@]+@", re.IGNORECASE)
# The user part of a URL that stands percent-encoded (once or twice) inside another URL.
_ENCODED_USERINFO = re.compile(r"((?:%(?:25)*2F){2})(?:(?!%(?:25)*2F|[&#\s]).)+?(%(?:25)*40)", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Whether a param or key of this name is expected to hold a secret."""
    return _NAME.search(name) is not None


def mask_url(url: str) -> str:
    """``url`` with its user and password replaced, also those of a URL that it carries percent-encoded."""
    return _ENCODED_USERINFO.sub(rf"\1{MASK}\2", _USERINFO.sub(rf"\1{MASK}@", url))


def mask_text(text: str) -> str:
    """``text`` with what follows words like "password=" and what stands before "@" in URLs replaced."""
    return mask_url(_IN_TEXT.sub(rf"\1{MASK}", text))
