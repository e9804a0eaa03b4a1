"""Keeping secrets out of params, logs, errors and tables.

Secrets are passwords and tokens: what follows the name of one ("password=x"), "user:password@" in a URL, also in one
that stands percent-encoded inside another, and tokens that are known by their form. Anything else stays as it is: a
name alone before "@" is a container, an image or an account.

Text comes from users and may be long. All of this takes time in proportion to its length: what a pattern looks at is
bounded, or is not looked at again.
"""

from __future__ import annotations

import functools
import re
from typing import Final

MASK: Final = "***"

MARGIN: Final = 1_000
"""Characters beyond the end of what a caller keeps that are looked at: a secret may be known only by what follows."""
# What there must be, in lower case, for a search: most text has none of it, which is quickly seen.
_URL_HINTS: Final = ("//", "2f%")
_NAME_HINTS: Final = ("secret", "pass", "credential", "authorization", "bearer", "cookie", "token", "key", "pw", "sig")
_TOKEN_HINTS: Final = (
    "private key-",
    *"bearer gho_ ghp_ ghr_ ghs_ ghu_ github_pat_ glpat- hf_ sk- k_live_ k_test_ dapi akia asia xox xapp-".split(),
    *"eyj aiza ya29. npm_ pypi- sg.".split(),
)


def mask_text(text: str, limit: int | None = None) -> str:
    """``text``, such as a URL, with its passwords and tokens replaced; masking once more changes nothing.

    ``limit`` is how many characters the caller keeps: what stands far beyond them is left out.
    """
    if limit is not None:
        text = text[: limit + MARGIN]
    if len(text) < 16 and not ("=" in text or ":" in text or "%" in text or "--" in text or "//" in text):
        return text
    lower = text.lower()
    for hints, mask in ((_TOKEN_HINTS, _mask_tokens), (_URL_HINTS, _mask_users), (_NAME_HINTS, _mask_named)):
        if any(hint in lower for hint in hints):
            text = mask(text)
    return text


def mask_value(name: str, text: str, limit: int | None = None) -> str:
    """``text`` as it may be shown under ``name``: all of it is a secret where the name says so (see ``mask_text``)."""
    if is_secret_name(name) and not _tells_nothing(text, is_token="token" in name.lower()):
        return MASK
    return mask_text(text, limit)


def mask_url(url: str) -> str:
    """``url`` without credentials."""
    return mask_text(url)


# ---- known tokens ----

_TOKEN: Final = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"gh[opsur]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[\w-]{16,}|hf_[A-Za-z0-9]{20,}|"
    r"sk-(?:[a-z0-9]{1,12}-){0,3}(?=[A-Za-z]{0,40}\d)[A-Za-z0-9_]{16,}[A-Za-z0-9_-]*|[sr]k_(?:live|test)_[A-Za-z0-9]{16,}|"
    r"dapi[0-9a-f]{32}(?:-\d+)?|(?:AKIA|ASIA)[A-Z0-9]{16}|xox[a-z]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,}|"
    r"eyJ[\w-]{10,}\.[\w-]{10,}(?:\.[\w-]*)?|AIza[\w-]{35}|ya29\.[\w-]{20,}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,}|"
    r"SG\.[\w-]{16,}\.[\w-]{16,})(?![A-Za-z0-9_-])",
    re.ASCII,
)
_MARKED: Final = re.compile(
    r"\b(bearer[ \t]{1,8})(?=[A-Za-z._~+/-]{0,80}\d)[\w.~+/-]{16,}=*"
    r"|(-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----)(?:(?!-----END)[\s\S])+",
    re.ASCII | re.IGNORECASE,
)


def _mask_tokens(text: str) -> str:
    return _MARKED.sub(rf"\1\2{MASK}", _TOKEN.sub(MASK, text))


# ---- users of URLs ----

# Encoded this many times at most: a composite URI encodes twice.
_LEVELS: Final = range(4)
_OPENED: Final = re.compile(
    r"(?P<colon>:|%(?P<deep>(?:25){0,3})3A)?(?:(?P<plain>//)|%(?P<level>(?:25){0,3})2F%(?P=level)2F)", re.IGNORECASE
)
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*\Z", re.IGNORECASE)
# Databases whose URLs may have a password with "/", "?" and "#" in it.
_DATABASES: Final = re.compile(r"(?:postgres|mysql|mariadb|mssql|oracle|redis|mongodb)", re.IGNORECASE)
_WEB: Final = re.compile(r"(?:git\+)?https?\Z", re.IGNORECASE)
_PORT: Final = re.compile(r"\d{1,5}(?![^/?#,\s])")
_DIGEST: Final = re.compile(r"sha\d{3}(?::|%(?:25)*3A)[0-9a-f]", re.IGNORECASE)
_COLON: Final = re.compile(r":|%(?:25){0,3}3A", re.IGNORECASE)
_LONG_ID: Final = re.compile(r"(?=\D*\d)(?=\d*\D)[A-Za-z0-9_-]{32,}\Z")
# Longest password with a "/" in it.
_PASSWORD: Final = 256


def _encoded(character: str, level: int) -> str:
    """A pattern for ``character`` encoded up to ``level`` times."""
    return "|".join([re.escape(character), *(f"%{'25' * i}{ord(character):02X}" for i in range(level))])


# By level: what ends the part of a URL that may hold a user, what ends a URL, and "@".
_ENDS: Final = [
    re.compile("|".join(['[\\s"<>&]' if i else '[\\s"<>]', *(_encoded(c, i) for c in "/?#")]), re.IGNORECASE)
    for i in _LEVELS
]
_FAR_ENDS: Final = [re.compile(r'[\s"<>]' + ("|&|%(?:25)*(?:26|20|22)" if i else ""), re.IGNORECASE) for i in _LEVELS]
_ATS: Final = [re.compile(_encoded("@", i), re.IGNORECASE) for i in _LEVELS]


def _mask_users(text: str) -> str:
    parts, done = [], 0
    for opened in _OPENED.finditer(text):
        if opened.start() < done:
            continue
        place = _secret_user(text, opened)
        if place is not None:
            parts += [text[done : opened.end()], MASK]
            done = place
    return "".join((*parts, text[done:]))


def _secret_user(text: str, opened: re.Match[str]) -> int | None:
    """Where the user part ends, without its "@", that begins behind ``opened``; None if it holds no secret."""
    start = opened.end()
    before = text[max(opened.start() - 30, 0) : opened.start()]
    scheme = found[0] if opened["colon"] and (found := _SCHEME.search(before)) else ""
    if not opened["colon"] and before[-1:] and (before[-1].isalnum() or before[-1] in "_.-/%"):
        return None  # an empty folder in the middle of a path
    depth = opened["deep"] if opened["plain"] else opened["level"]
    level = 0 if depth is None else min(len(depth) // 2 + 1, _LEVELS[-1])
    ended = _ENDS[level].search(text, start)
    end = ended.start() if ended else len(text)
    ats = list(_ATS[level].finditer(text, start, end))
    if not ats and _DATABASES.match(scheme):
        colon = _COLON.search(text, start, end)
        if colon is not None and not _PORT.match(text, colon.end()):
            far = _FAR_ENDS[level].search(text, start, start + _PASSWORD)
            ats = list(_ATS[level].finditer(text, start, far.start() if far else start + _PASSWORD))[:1]
    if not ats:
        return None
    user = text[start : ats[-1].start()]
    if _COLON.search(user):
        return None if _DIGEST.match(text, ats[-1].end()) else ats[-1].start()
    return ats[-1].start() if _WEB.match(scheme) and _LONG_ID.match(user) else None


# ---- names and values ----

_NAMES: Final = re.compile("|".join(_NAME_HINTS), re.IGNORECASE)
_NAME: Final = re.compile(r"[A-Za-z0-9_-]*")
_NAME_CHARACTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
_QUERY: Final = re.compile(r"(?:[?&;]|%(?:25){0,3}(?:3F|26))\Z", re.IGNORECASE)
_QUERY_SECRETS: Final = frozenset({"sig", "signature"})
# "=" or ":" with the quotes and blanks around it: password=x, "api_key": "x". Only options have values behind blanks.
_SIGN: Final = re.compile(
    r"""(?:\\?["'])?[ \t]{0,8}(?:=>|==?|:|%(?:25){0,3}3[AD])\s{0,8}|(?P<gap>[ \t]{1,8})(?!-)""", re.IGNORECASE
)
# A value in quotes, perhaps in the quotes of JSON in JSON and in a call, up to the end of them; or up to the end of the
# word. The kind of an authorization is no part of it.
_KIND: Final = r"(?:(?:bearer|basic|token|digest|negotiate|apikey)[ \t]{1,8}(?=[^\s=:]))?"
_VALUE: Final = re.compile(
    rf"""[A-Za-z_.]{{0,30}}\(?(?:\\"{_KIND}((?:(?!\\").)+)|\\'{_KIND}((?:(?!\\').)+)"""
    rf"""|"{_KIND}((?:[^"\\\n]|\\.)+)|'{_KIND}((?:[^'\\\n]|\\.)+))|{_KIND}((?:(?!%(?:25){{0,3}}26)[^\s"',;&)\]}}\\])+)""",
    re.IGNORECASE,
)
# Values that tell nothing, and types in the text of a program.
_NOTHING: Final = re.compile(
    r"(?:\*{3}|none|null|nil|true|false|str|int|bool|bytes|object|string|<[^>]*>?)?\Z", re.IGNORECASE
)
_NUMBER: Final = re.compile(r"-?\d{1,7}(?:\.\d*)?\Z")
# What parsers say of tokens that are no secrets.
_PARSED: Final = re.compile(r"(?:unexpected|expected|invalid|illegal|unknown|missing|bad) \Z", re.IGNORECASE)


def _tells_nothing(value: str, *, is_token: bool) -> bool:
    return _NOTHING.match(value) is not None or (is_token and _NUMBER.match(value) is not None)


def _mask_named(text: str) -> str:
    parts, done, place = [], 0, 0
    while found := _NAMES.search(text, place):
        at = found.start()
        before = text[max(at - _LONGEST_NAME // 2, done) : at]
        start = at - (len(before) - len(before.rstrip(_NAME_CHARACTERS)))
        name = _NAME.match(text, at)
        assert name is not None
        place = name.end()  # whatever else stands in this name needs no look of its own
        value = _secret_value(text, start, place)
        if value is not None:
            parts += [text[done : value[0]], MASK]
            done = place = value[1]
    return "".join((*parts, text[done:]))


def _secret_value(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Where the value of the name from ``start`` to ``end`` stands, if it is a secret."""
    name = text[max(start, end - _LONGEST_NAME) : end]
    if name.lower() == "key" and text[start - 1 : start] == " ":  # "API key: x"
        name = f"{text[max(start - 10, 0) : start - 1].rpartition(' ')[2]}-{name}"
    in_query = name.lower() in _QUERY_SECRETS and _QUERY.search(text, max(start - 10, 0), start)
    if not in_query and not is_secret_name(name):
        return None
    sign = _SIGN.match(text, end)
    if sign is None or (sign["gap"] and not name.startswith("--")):
        return None
    value = _VALUE.match(text, sign.end())
    if value is None or value.lastindex is None:
        return None
    is_token = "token" in name.lower()
    if _tells_nothing(value[value.lastindex], is_token=is_token):
        return None
    if is_token and _PARSED.search(text, max(start - 12, 0), start):
        return None
    return value.span(value.lastindex)


# ---- names that tell of a secret ----

# Characters of a name that are looked at, from its end.
_LONGEST_NAME: Final = 120
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
    return _is_secret(name[-_LONGEST_NAME:])


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
