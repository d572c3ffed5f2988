"""Key shards: how many a projection has, how far each is, and the epoch that they apply."""

from alembic import op

revision = "0027"
down_revision = "0033"
branch_labels = None
depends_on = None

_STATEMENTS = (
    "ALTER TABLE ofp.projection ADD COLUMN shards smallint NOT NULL DEFAULT 1 CHECK (shards BETWEEN 1 AND 64)",
    "ALTER TABLE ofp.projection ADD COLUMN sharded_at bigint NOT NULL DEFAULT 0",
    "COMMENT ON COLUMN ofp.projection.sharded_at IS 'the version from which on it has that many shards'",
    """
    CREATE TABLE ofp.projection_shard (
        projection_id bigint NOT NULL REFERENCES ofp.projection ON DELETE CASCADE,
        shard smallint NOT NULL CHECK (shard > 0),
        version bigint NOT NULL,
        pruned_to bigint,
        pruning_type smallint,
        pruning_key text COLLATE "C",
        pruning_ts bigint,
        PRIMARY KEY (projection_id, shard)
    ) WITH (fillfactor = 50)
    """,
    "COMMENT ON TABLE ofp.projection_shard IS 'key shards but shard 0, whose version and pruning are those of the projection'",
    """
    CREATE TABLE ofp.epoch (
        projection_id bigint PRIMARY KEY REFERENCES ofp.projection ON DELETE CASCADE,
        version bigint NOT NULL,
        basis text NOT NULL,
        watermark bigint,
        partition_ids text[] NOT NULL,
        records bigint[] NOT NULL,
        duplicates bytea[] NOT NULL
    ) WITH (fillfactor = 50)
    """,
    "COMMENT ON TABLE ofp.epoch IS 'the version that the shards of a projection are to apply next, until all of them have'",
    "ALTER TABLE ofp.commit_touched ADD COLUMN shard smallint NOT NULL DEFAULT 0",
    "ALTER TABLE ofp.commit_touched DROP CONSTRAINT commit_touched_pkey, ADD PRIMARY KEY (projection_id, version, shard)",
)


def upgrade() -> None:
    """Give every projection one shard, as it had."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Forget shards; refused while a projection has several, for the older form applies all keys in one commit."""
    op.execute(
        """
        DO $$ BEGIN
            IF EXISTS (SELECT FROM ofp.projection WHERE shards > 1) THEN
                RAISE EXCEPTION 'projections have several key shards: `ofp projection reshard ID 1` first';
            END IF;
        END $$
        """
    )
    op.execute("DELETE FROM ofp.commit_touched WHERE shard > 0")
    op.execute("ALTER TABLE ofp.commit_touched DROP CONSTRAINT commit_touched_pkey, ADD PRIMARY KEY (projection_id, version)")
    op.execute("ALTER TABLE ofp.commit_touched DROP COLUMN shard")
    op.execute("DROP TABLE ofp.epoch")
    op.execute("DROP TABLE ofp.projection_shard")
    op.execute("ALTER TABLE ofp.projection DROP COLUMN shards, DROP COLUMN sharded_at")
