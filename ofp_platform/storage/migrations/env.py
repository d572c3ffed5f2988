"""How Alembic runs: on the connection, and in the transaction, that `storage.schema.migrate` hands over."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table_schema="ofp", transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
