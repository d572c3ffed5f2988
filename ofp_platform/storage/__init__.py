"""PostgreSQL and the object store."""
