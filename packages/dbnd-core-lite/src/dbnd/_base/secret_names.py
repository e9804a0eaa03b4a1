"""Names of params, keys and options that tell of a secret."""

from __future__ import annotations

import functools
import re
from typing import Final

LONGEST: Final = 120
"""Characters of a name that are looked at, from its end."""

_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRETS: Final = ("secret", "secrets", "password", "passwords", "passwd", "passphrase", "credential", "credentials")
_KEY_OWNERS: Final = frozenset({"private", "access", "api", "aws", "account", "secret"})
# A "pass" of theirs is a password; others are filters and epochs.
_LOGINS: Final = frozenset("db database user admin root login smtp ftp proxy mysql postgres redis mongo".split())
# The tokens of language models are no secrets: "pad_token", "max_tokens" (by its plural), "token_type".
_TEXT_TOKENS: Final = frozenset(
    "bos eos pad unk sep cls mask special start end stop begin image audio video text first last next prev previous "
    "new per max min num n total avg mean cost decoder encoder input output prompt completion control".split()
)
_TOKEN_FACTS: Final = frozenset(
    "id ids type types count counts len length limit budget size level classification embedding embeddings dim dropout "
    "mask index idx position positions cost price loss accuracy per rate".split()
)
# What tells of a secret, and is none.
_FACTS: Final = frozenset("file path dir folder name url uri endpoint arn policy expiry expiration ttl env".split())


def is_secret_name(name: str) -> bool:
    """Whether a param or key of this name is expected to hold a secret."""
    return _is_secret(name[-LONGEST:])


@functools.lru_cache(maxsize=4096)
def _is_secret(name: str) -> bool:
    words = [word.lower() for word in _WORDS.findall(name)]
    if not words or words[-1] in _FACTS:
        return False
    return any(_tells(word, words[:place][-1:], words[place + 1 :][:1]) for place, word in enumerate(words))


def _tells(word: str, before: list[str], after: list[str]) -> bool:
    """Whether ``word`` of a name, between its neighbours, tells of a secret."""
    if word.endswith(_SECRETS) or word in {"authorization", "bearer", "cookie", "cookies"}:
        return True
    if word in {"pass", "pw"}:
        return not _LOGINS.isdisjoint(before)
    if word.endswith("token"):
        return _TEXT_TOKENS.isdisjoint([word.removesuffix("token"), *before]) and _TOKEN_FACTS.isdisjoint(after)
    if word == "signature":
        return not {"amz", "goog"}.isdisjoint(before)
    if word == "pwd":
        return not after
    return word.endswith("key") and not _KEY_OWNERS.isdisjoint([word.removesuffix("key"), *before])
