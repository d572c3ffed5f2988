"""Registries, projections and their state."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

STATEMENTS = """
CREATE TABLE ofp.registry_pack (
    registry_digest text PRIMARY KEY,
    pack_id text NOT NULL,
    revision bigint NOT NULL,
    content text NOT NULL
);
CREATE TABLE ofp.registry_group (
    group_name text NOT NULL,
    group_version text NOT NULL,
    content_digest text NOT NULL,
    registry_digest text NOT NULL REFERENCES ofp.registry_pack,
    PRIMARY KEY (group_name, group_version)
);
CREATE TABLE ofp.projection (
    projection_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream_name text NOT NULL,
    pins text NOT NULL,
    pins_digest text NOT NULL,
    registry_digest text NOT NULL REFERENCES ofp.registry_pack,
    run_config_digest text NOT NULL,
    status text NOT NULL CHECK (status IN ('building', 'live', 'retired')),
    version bigint NOT NULL DEFAULT 0,
    basis text NOT NULL,
    watermark bigint,
    pruned_to bigint,
    UNIQUE (stream_name, pins_digest, registry_digest, run_config_digest)
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX projection_one_live ON ofp.projection (stream_name, pins_digest) WHERE status = 'live';
CREATE TABLE ofp.projection_partition (
    projection_id bigint NOT NULL REFERENCES ofp.projection ON DELETE CASCADE,
    partition_id text NOT NULL,
    partition_number integer NOT NULL,
    records bigint NOT NULL,
    applied bigint NOT NULL,
    duplicates bigint NOT NULL,
    late bigint NOT NULL,
    failed bigint NOT NULL,
    ignored bigint NOT NULL,
    PRIMARY KEY (projection_id, partition_id)
) WITH (fillfactor = 50);
CREATE TABLE ofp.chunk (
    projection_id bigint NOT NULL,
    key_type smallint NOT NULL,
    first_ts bigint NOT NULL,
    last_ts bigint NOT NULL,
    key_id text COLLATE "C" NOT NULL,
    summaries bytea NOT NULL,
    block bytea NOT NULL,
    PRIMARY KEY (projection_id, key_type, key_id, first_ts)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.1);
ALTER TABLE ofp.chunk ALTER COLUMN summaries SET STORAGE MAIN, ALTER COLUMN block SET STORAGE EXTERNAL;
CREATE TABLE ofp.span (
    projection_id bigint NOT NULL,
    key_type smallint NOT NULL,
    first_ts bigint NOT NULL,
    last_ts bigint NOT NULL,
    key_id text COLLATE "C" NOT NULL,
    summaries bytea NOT NULL,
    PRIMARY KEY (projection_id, key_type, key_id, first_ts)
);
CREATE TABLE ofp.identity_run (
    projection_id bigint NOT NULL REFERENCES ofp.projection ON DELETE CASCADE,
    version bigint NOT NULL,
    event_count integer NOT NULL,
    max_ts bigint NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (projection_id, version)
);
ALTER TABLE ofp.identity_run ALTER COLUMN content SET STORAGE EXTERNAL;
CREATE TABLE ofp.apply_failure (
    projection_id bigint NOT NULL REFERENCES ofp.projection ON DELETE CASCADE,
    partition_id text NOT NULL,
    record_offset text NOT NULL,
    event_id text NOT NULL,
    event_type text NOT NULL,
    ts bigint NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    PRIMARY KEY (projection_id, partition_id, record_offset)
);
CREATE INDEX apply_failure_reason ON ofp.apply_failure (projection_id, reason);
CREATE TABLE ofp.anomaly (
    projection_id bigint NOT NULL REFERENCES ofp.projection ON DELETE CASCADE,
    partition_id text NOT NULL,
    record_offset text NOT NULL,
    event_id text NOT NULL,
    event_type text NOT NULL,
    first_partition_id text NOT NULL,
    first_record_offset text NOT NULL,
    PRIMARY KEY (projection_id, partition_id, record_offset)
);
CREATE TABLE ofp.snapshot_index (
    snapshot_hash text PRIMARY KEY,
    pins_digest text NOT NULL,
    as_of bigint NOT NULL,
    basis text NOT NULL,
    graph_version text,
    registry_digest text NOT NULL,
    run_config_digest text NOT NULL,
    reference text NOT NULL
);
CREATE INDEX snapshot_index_as_of ON ofp.snapshot_index (pins_digest, as_of);
"""


def upgrade() -> None:
    """Create the tables of the online plane."""
    for statement in STATEMENTS.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drop them, in the order of their references."""
    for table in (
        "snapshot_index",
        "anomaly",
        "apply_failure",
        "identity_run",
        "span",
        "chunk",
        "projection_partition",
        "projection",
        "registry_group",
        "registry_pack",
    ):
        op.execute(f"DROP TABLE ofp.{table}")
