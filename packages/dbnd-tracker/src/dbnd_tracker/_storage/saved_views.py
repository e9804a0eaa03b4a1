"""Views: addresses of pages that somebody has saved under a name."""

from __future__ import annotations

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from dbnd_tracker._storage.base import Name, Numbered
from dbnd_tracker._storage.writer import Writer


class SavedView(Numbered):
    """The address of a page, by the name that it was saved under."""

    __tablename__ = "saved_views"

    name: Mapped[Name] = mapped_column(unique=True)
    address: Mapped[str]


def saved_views(session: Session) -> dict[str, str]:
    """The addresses of all views by their names, in the order of these."""
    query = select(SavedView.name, SavedView.address).order_by(func.lower(SavedView.name), SavedView.name)
    return {row.name: row.address for row in session.execute(query)}


def save_view(writer: Writer, name: str, address: str) -> None:
    """Save an address under a name, in place of what has had it before."""
    writer.upsert(SavedView, [{"name": name, "address": address}], "name")


def forget_view(session: Session, name: str) -> bool:
    """Forget a view, and return whether there was one."""
    return session.execute(delete(SavedView).where(SavedView.name == name).returning(SavedView.id)).first() is not None
