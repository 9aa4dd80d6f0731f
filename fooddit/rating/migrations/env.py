"""Alembic's entry: migrations run on the connection that `database.migrate` gives."""

from alembic import context

from fooddit.rating.tables import Table

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Table.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
