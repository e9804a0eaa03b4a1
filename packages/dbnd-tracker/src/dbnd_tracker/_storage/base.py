"""What all tables are made of: the base class, and the types of columns."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAME_LENGTH: Final = 500
"""Longest name that is indexed, in characters (PostgreSQL indexes at most some 2,700 bytes)."""
NEW_IDS: Final = {"sqlite_autoincrement": True}
"""For ``__table_args__``: the id of a deleted row is never used again, as PostgreSQL's sequences have it anyway."""


class UtcDateTime(sa.TypeDecorator[datetime]):
    """A point in time, aware and in UTC on the Python side; SQLite keeps it without its zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """To the database: in UTC."""
        return None if value is None else value.astimezone(timezone.utc)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """From the database: labelled as UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)


# SQLite numbers rows by itself only in a column of exactly the type INTEGER.
Id = Annotated[int, mapped_column(sa.BigInteger().with_variant(sa.Integer, "sqlite"))]
Int64 = Annotated[int, mapped_column(sa.BigInteger)]
Int16 = Annotated[int, mapped_column(sa.SmallInteger)]
Uid = Annotated[str, mapped_column(sa.String(36))]
Name = Annotated[str, mapped_column(sa.String(NAME_LENGTH))]
Text16 = Annotated[str, mapped_column(sa.String(16))]
Text32 = Annotated[str, mapped_column(sa.String(32))]
Text64 = Annotated[str, mapped_column(sa.String(64))]
Object = Annotated[dict[str, Any], mapped_column(sa.JSON(none_as_null=True))]
Objects = Annotated[list[dict[str, Any]], mapped_column(sa.JSON(none_as_null=True))]
Dimensions = Annotated[list[int | None], mapped_column(sa.JSON(none_as_null=True))]


class Base(DeclarativeBase):
    """Base of the tables: every constraint has a name, so that migrations can change it."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {str: sa.Text(), float: sa.Double(), datetime: UtcDateTime()}  # noqa: RUF012  SQLAlchemy's own


class Numbered(Base):
    """Base of what has an integer id."""

    __abstract__ = True

    id: Mapped[Id] = mapped_column(primary_key=True)


class OfAttempt(Numbered):
    """Base of what belongs to an attempt, and is deleted with it."""

    __abstract__ = True

    attempt_id: Mapped[Id] = mapped_column(sa.ForeignKey("attempts.id"))
