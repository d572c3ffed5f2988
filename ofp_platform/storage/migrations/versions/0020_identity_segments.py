"""Segments of identities: what a projection has known for long is looked up in the store, not loaded."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

STATEMENTS = """
CREATE TABLE ofp.identity_segment (
    projection_id bigint NOT NULL REFERENCES ofp.projection ON DELETE CASCADE,
    segment_id bigint NOT NULL,
    level smallint NOT NULL,
    state text NOT NULL CHECK (state IN ('building', 'whole', 'leaving')),
    after_version bigint NOT NULL,
    last_version bigint NOT NULL CHECK (last_version > after_version),
    entries bigint NOT NULL,
    written bigint NOT NULL,
    max_ts bigint NOT NULL,
    bounds text NOT NULL,
    page_bits smallint NOT NULL,
    group_bits smallint NOT NULL CHECK (group_bits BETWEEN 0 AND page_bits),
    group_blocks integer NOT NULL,
    place bigint NOT NULL,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (projection_id, segment_id)
) WITH (fillfactor = 50);
CREATE TABLE ofp.identity_page (
    projection_id bigint NOT NULL,
    segment_id bigint NOT NULL,
    page bigint NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (projection_id, segment_id, page)
) WITH (toast_tuple_target = 8160);
ALTER TABLE ofp.identity_page ALTER COLUMN content SET STORAGE MAIN;
CREATE TABLE ofp.identity_filter (
    projection_id bigint NOT NULL,
    segment_id bigint NOT NULL,
    part bigint NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (projection_id, segment_id, part)
) WITH (toast_tuple_target = 8160);
ALTER TABLE ofp.identity_filter ALTER COLUMN content SET STORAGE MAIN;
COMMENT ON TABLE ofp.identity_segment IS
    'identities of the commits (after_version, last_version], by id, cut into pages; only whole ones are looked at'
"""


def upgrade() -> None:
    """Create the tables. Runs that are there become segments with the next commits."""
    for statement in STATEMENTS.split(";\n"):
        op.execute(statement)
    op.execute("ALTER TABLE ofp.projection ADD COLUMN identity_credit bigint NOT NULL DEFAULT 0")
    op.execute("COMMENT ON COLUMN ofp.projection.identity_credit IS 'identities that the next commits may move between segments'")


def downgrade() -> None:
    """Put what is in segments back into runs, and drop them."""
    op.execute(
        "INSERT INTO ofp.identity_run (projection_id, version, event_count, max_ts, content)"
        " SELECT s.projection_id, s.last_version, s.entries, s.max_ts, string_agg(substr(p.content, 17), '' ORDER BY p.page)"
        " FROM ofp.identity_segment AS s JOIN ofp.identity_page AS p USING (projection_id, segment_id) WHERE s.state = 'whole'"
        " GROUP BY s.projection_id, s.segment_id"
    )
    for table in ("identity_filter", "identity_page", "identity_segment"):
        op.execute(f"DROP TABLE ofp.{table}")
    op.execute("ALTER TABLE ofp.projection DROP COLUMN identity_credit")
