"""What Alembic runs to apply migrations: always on a connection that the tracker has opened."""

from __future__ import annotations

from alembic import context

from dbnd_tracker._models import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
