"""Parity records, corrections, and the index of published datasets."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables. Manifests in the object store are the truth; the index only finds them."""
    op.execute("""
        CREATE TABLE ofp.parity_record (
            request_id    text   NOT NULL,
            snapshot_hash text   NOT NULL,
            decision_id   text   NOT NULL,
            outcome       text   NOT NULL CHECK (outcome IN ('MATCH', 'MISMATCH', 'UNCHECKABLE')),
            reason        text,
            as_of         bigint,
            group_refs    text[] NOT NULL,
            record        text   NOT NULL,
            PRIMARY KEY (request_id, snapshot_hash, decision_id),
            CHECK ((outcome = 'UNCHECKABLE') = (reason IS NOT NULL))
        )""")
    op.execute("COMMENT ON COLUMN ofp.parity_record.decision_id IS 'empty when a snapshot is compared without a decision'")
    op.execute("COMMENT ON COLUMN ofp.parity_record.as_of IS 'microseconds'")
    op.execute("CREATE INDEX parity_record_outcome ON ofp.parity_record (outcome, as_of)")
    op.execute("""
        CREATE TABLE ofp.correction (
            request_id    text   NOT NULL,
            decision_id   text   NOT NULL,
            key_type      text   NOT NULL,
            key_id        text   NOT NULL,
            group_name    text   NOT NULL,
            group_version text   NOT NULL,
            feature       text   NOT NULL,
            as_of         bigint NOT NULL,
            record        text   NOT NULL,
            PRIMARY KEY (request_id, decision_id, key_type, key_id, group_name, group_version, feature)
        )""")
    op.execute("""
        CREATE TABLE ofp.dataset_index (
            dataset_name     text NOT NULL,
            dataset_identity text NOT NULL,
            manifest_path    text NOT NULL,
            manifest_digest  text NOT NULL,
            request_id       text NOT NULL,
            supersedes       text,
            PRIMARY KEY (dataset_name, dataset_identity)
        )""")


def downgrade() -> None:
    """Drop them; the manifests stay where they are."""
    op.execute("DROP TABLE ofp.dataset_index, ofp.correction, ofp.parity_record")
