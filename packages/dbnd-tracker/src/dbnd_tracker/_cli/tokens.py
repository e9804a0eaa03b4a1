"""``dbnd tracker token``: tokens of the tracker."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click

from dbnd import UsageError
from dbnd_tracker._cli.databases import configured_database, database_option, duration_of, json_option
from dbnd_tracker._errors import MissingError

if TYPE_CHECKING:
    from dbnd_tracker._storage.models import AccessToken


@click.group()
def token() -> None:
    """Make, list and revoke the tokens that open the tracker.

    A tracker asks for tokens when it is started while there is one. Only hashes of them are stored.
    """


@token.command()
@click.argument("label")
@click.option(
    "--role",
    type=click.Choice(["write", "read", "admin"]),
    default="write",
    show_default=True,
    help="write: jobs that track runs; read: people and dashboards; admin: everything.",
)
@click.option("--expires", help="How long it is valid, such as 12h or 90d; without it, until it is revoked.")
@database_option
@json_option
def create(*, label: str, role: str, expires: str | None, database: str | None, as_json: bool) -> None:
    """Make a token called LABEL and print it, once: nobody can show it again."""
    from dbnd.plugins import console
    from dbnd_tracker._access.roles import Role
    from dbnd_tracker._access.tokens import create_token

    lifespan = None if expires is None else duration_of(expires, "--expires")
    made, secret = configured_database(database).write(
        lambda writer: create_token(writer, label=label, role=Role(role), lifespan=lifespan)
    )
    if as_json:
        console.json_result({"token": secret, **_facts(made)})
        return
    console.result(secret)
    console.info(
        f"This is the token {made.label!r} for {made.role}; it is shown only now. A tracker that is running "
        "without tokens asks for them once it has been started again."
    )


@token.command("list")
@database_option
@json_option
def list_(*, database: str | None, as_json: bool) -> None:
    """List all tokens, without their secrets."""
    from dbnd.plugins import console
    from dbnd_tracker._access.tokens import list_tokens
    from dbnd_tracker._format import local_time

    with configured_database(database).read() as session:
        found = list_tokens(session)
    if as_json:
        console.json_result([_facts(one) for one in found])
    elif not found:
        console.info("There is no token; `dbnd tracker token create LABEL` makes one.")
    else:
        rows = [
            (one.uid[:8], one.label, one.role, _state(one), local_time(one.created_at), local_time(one.expires_at))
            for one in found
        ]
        console.result(
            console.table(("TOKEN", "LABEL", "ROLE", "STATE", "CREATED", "EXPIRES"), rows, uncut=("CREATED", "EXPIRES"))
        )


@token.command()
@click.argument("uid")
@database_option
@json_option
def revoke(*, uid: str, database: str | None, as_json: bool) -> None:
    """Take back the token whose uid is, or starts with, UID; it opens nothing from now on."""
    from dbnd.plugins import console
    from dbnd_tracker._access.tokens import revoke_token

    try:
        revoked = configured_database(database).write(lambda writer: revoke_token(writer, uid.lower()))
    except MissingError as error:
        raise UsageError(f"{error} `dbnd tracker token list` shows all.") from None
    if as_json:
        console.json_result(_facts(revoked))
    console.success(f"The token {revoked.label!r} is revoked.")


def _state(one: AccessToken) -> str:
    if one.revoked_at is not None:
        return "revoked"
    return "expired" if one.expires_at is not None and one.expires_at <= datetime.now(timezone.utc) else "valid"


def _facts(one: AccessToken) -> dict[str, str | None]:
    times = {"created_at": one.created_at, "expires_at": one.expires_at, "revoked_at": one.revoked_at}
    shown = {name: None if time is None else time.isoformat() for name, time in times.items()}
    return {"uid": one.uid, "label": one.label, "role": one.role, "state": _state(one), **shown}
