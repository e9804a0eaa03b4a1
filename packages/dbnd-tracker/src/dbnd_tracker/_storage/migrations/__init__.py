"""The history of the schema, applied with Alembic's parts and without its ``env.py``.

Alembic's usual way in keeps the migration that runs in module globals (``alembic.op``, ``alembic.context``). The
embedded tracker migrates in the sender's thread while MLflow may migrate the user's own store in the main thread; with
globals, each would run on the other's connection. So a script here takes its operations as an argument.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

if TYPE_CHECKING:
    from sqlalchemy import Connection


def scripts() -> ScriptDirectory:
    """The migration scripts of this folder."""
    return ScriptDirectory(str(Path(__file__).parent))


def upgrade(connection: Connection) -> None:
    """Bring the schema up to date within the transaction that ``connection`` is in."""
    found = scripts()
    context = MigrationContext.configure(
        connection,
        opts={"fn": lambda heads, _: found._upgrade_revs("head", heads)},  # noqa: SLF001  as Alembic's own commands do
    )
    context.run_migrations(op=Operations(context))
