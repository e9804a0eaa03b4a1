"""The history of the schema, applied by Alembic within the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config

if TYPE_CHECKING:
    from sqlalchemy import Connection


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration: scripts of this folder, on ``connection``."""
    found = Config()
    # Alembic reads its options with "%" as a mark, and a path may hold one.
    found.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    found.attributes["connection"] = connection
    return found


def upgrade(connection: Connection) -> None:
    """Bring the schema up to date within the transaction that ``connection`` is in."""
    command.upgrade(config(connection), "head")
