"""Access tokens and sessions, of which the database keeps only hashes.

A secret is 256 random bits, so that a plain SHA-256 of it can neither be guessed nor looked up.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Final

from sqlalchemy import ColumnElement, and_, delete, or_, select
from sqlalchemy.orm import Session

from dbnd_tracker._access.roles import Role
from dbnd_tracker._access.throttle import Throttle
from dbnd_tracker._errors import MissingError, TrackerError
from dbnd_tracker._storage.models import AccessSession, AccessToken
from dbnd_tracker._storage.writer import Writer

PREFIX: Final = "dbnd_"
"""Start of every token that the tracker makes: secret scanners find it."""
_MADE: Final = re.compile(rf"{PREFIX}[\w-]{{43}}", re.ASCII)
LABEL_LENGTH: Final = 200
SESSION_LIFESPAN: Final = timedelta(hours=12)
SETTING_LABEL: Final = "tracker.token"
"""Label of the token of the configuration, which does not stand in the database."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a request comes from: a token as logs name it, what it allows, and its hash."""

    label: str
    role: Role
    token_hash: str


ANYONE: Final = Identity("", Role.ADMIN, "")
"""Everyone, where the tracker asks for no token."""


def hash_of(secret: str) -> str:
    """What the database keeps of ``secret``."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def create_token(
    writer: Writer, *, label: str, role: Role, lifespan: timedelta | None = None, guards: bool = True
) -> tuple[AccessToken, str]:
    """Make a token, and return it as it is stored, and its secret, which nobody can find out later.

    Without a ``lifespan`` it is valid for ever. If it ``guards``, a tracker over this database asks for tokens because
    it exists.
    """
    secret = f"{PREFIX}{secrets.token_urlsafe(32)}"
    token = AccessToken(
        uid=str(uuid.uuid4()),
        label=label[:LABEL_LENGTH],
        role=role.value,
        hash=hash_of(secret),
        guards=guards,
        created_at=writer.now,
        expires_at=None if lifespan is None else writer.now + lifespan,
    )
    writer.session.add(token)
    writer.session.flush()
    return token, secret


def list_tokens(session: Session) -> list[AccessToken]:
    """All tokens, revoked and expired ones included, oldest first."""
    return list(session.scalars(select(AccessToken).order_by(AccessToken.id)))


def revoke_token(writer: Writer, uid: str) -> AccessToken:
    """Take back the token whose uid is or starts with ``uid``, and with it the sessions that it has opened.

    Raises:
        MissingError: No token, or more than one, has a uid that starts so.
    """
    found = list(writer.session.scalars(select(AccessToken).where(AccessToken.uid.startswith(uid, autoescape=True))))
    if len(found) != 1 or not uid:
        which = "More than one token has" if found else "No token has"
        raise MissingError(f"{which} a uid that starts with {uid[:80]!r}.")
    token = found[0]
    token.revoked_at = token.revoked_at or writer.now
    writer.session.execute(delete(AccessSession).where(AccessSession.token_hash == token.hash))
    return token


def is_guarded(session: Session) -> bool:
    """Whether there is a valid token because of which a tracker over this database asks for one."""
    return session.scalar(select(AccessToken.id).where(AccessToken.guards, _is_valid()).limit(1)) is not None


def _is_valid() -> ColumnElement[bool]:
    now = datetime.now(timezone.utc)
    return and_(AccessToken.revoked_at.is_(None), or_(AccessToken.expires_at.is_(None), AccessToken.expires_at > now))


class ThrottledError(TrackerError):
    """Too many wrong tokens have come from an address, which may ask again in so many seconds."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"Too many wrong tokens or passwords have come from this address; ask again in {seconds} s.")
        self.seconds = seconds


class Keyring:
    """What tells whose token or session a secret is; ``setting`` is the token of the configuration, an admin's."""

    def __init__(self, setting: str | None) -> None:
        self._throttle = Throttle()
        self._setting = None if setting is None else Identity(SETTING_LABEL, Role.ADMIN, hash_of(setting))

    def of_token(self, session: Session, secret: str, address: str) -> Identity | None:
        """Whose token ``secret`` is, or None when it is not valid.

        What has the form of the tracker's own tokens is always looked up: nobody guesses 256 bits, and a client with a
        new token does not wait for others at its address.

        Raises:
            ThrottledError: Too many wrong ones came from there, and this one is wrong or was not looked at.
        """
        hashed = hash_of(secret)
        seconds = self._throttle.wait(address, hashed)
        found = None if seconds and not _MADE.fullmatch(secret) else self._of_hash(session, hashed)
        if seconds and found is None:
            raise ThrottledError(seconds)
        self._throttle.note(address, hashed, is_right=found is not None)
        return found

    def of_session(self, session: Session, secret: str) -> Identity | None:
        """Who opened the session ``secret``, or None when it has ended or its token is no longer valid."""
        wanted = select(AccessSession.token_hash).where(
            AccessSession.hash == hash_of(secret), AccessSession.expires_at > datetime.now(timezone.utc)
        )
        token_hash = session.scalar(wanted)
        return None if token_hash is None else self._of_hash(session, token_hash)

    def _of_hash(self, session: Session, hashed: str) -> Identity | None:
        if self._setting and secrets.compare_digest(self._setting.token_hash, hashed):
            return self._setting
        token = session.scalar(select(AccessToken).where(AccessToken.hash == hashed, _is_valid()))
        return None if token is None else Identity(token.label, Role(token.role), token.hash)


def open_session(writer: Writer, identity: Identity) -> str:
    """Open a session for ``identity`` and return its secret; sessions that have expired are forgotten."""
    secret = secrets.token_urlsafe(32)
    writer.session.execute(delete(AccessSession).where(AccessSession.expires_at <= writer.now))
    expires = writer.now + SESSION_LIFESPAN
    writer.session.add(AccessSession(hash=hash_of(secret), token_hash=identity.token_hash, expires_at=expires))
    return secret


def close_session(writer: Writer, secret: str) -> None:
    """End the session ``secret``, if there is one."""
    writer.session.execute(delete(AccessSession).where(AccessSession.hash == hash_of(secret)))
