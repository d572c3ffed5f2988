"""The one statement that reads the state of keys, and what it tells: all of it on one basis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ofp_platform.kernel.accumulate import EARLIEST, LATEST
from ofp_platform.online.serving.evaluation import Evaluator, StoredChunk, StoredState
from ofp_platform.online.state.buckets import KEY_TYPE_CODES
from ofp_platform.online.state.chunk_spans import SPAN_LEVELS
from ofp_platform.online.state.key_shards import shard_of, shard_words
from ofp_platform.registry.question import Question
from ofp_platform.vocabulary.errors import ContractError, Reason, unavailable
from ofp_platform.vocabulary.identity import ContextPins

_LEVELS = range(SPAN_LEVELS, 0, -1)
# Each range of the level is read by itself: as a join, PostgreSQL reads all rows of the key and compares each with each range.
_LEVEL = """s{level} AS MATERIALIZED (
            SELECT s.first_ts, s.last_ts, s.summaries, s.xmin AS row_id, s.amended_ts, {needed} AS needed, {crossed} AS crossed
            FROM r{level} AS r
            CROSS JOIN LATERAL (
                SELECT first_ts, last_ts, summaries, xmin, amended_ts FROM ofp.span
                WHERE projection_id = $1 AND key_type = k.key_type AND key_id = k.key_id COLLATE "C" AND level = {level}
                    AND first_ts >= r.low AND first_ts <= least(r.high, k.as_of)
                OFFSET 0
            ) AS s
        ), r{below} AS (
            SELECT first_ts AS low, last_ts AS high FROM s{level} WHERE needed OR crossed
            UNION ALL
            SELECT greatest((SELECT max(last_ts) + 1 FROM s{level}), (SELECT max(low) FROM r{level})), 9223372036854775807
        )"""


def _statement(*, knows_values: bool, shards: str = "", columns: str = "", only: str = "") -> str:
    """The statement. `knows_values`: of a reader that holds values of chunks and spans, and reads what is newer than asked for.

    One statement is one snapshot of the store: the projection's row and the state of all keys belong to one commit. A key's
    segments are its spans; below the spans that an edge of a window falls into, and behind the last span of a level, those of the
    next level, and at last the chunks. A chunk's block is sent only where an edge falls inside it, or where every event is needed
    (k.whole_after) and the reader does not hold its values ($7 for chunks, $8 and $9 for spans: their first times). The events of
    a key's tail are newer than all of these, and are sent as they are.
    """
    until, arrays = ("until", ", $11::bigint[]") if knows_values else ("as_of", "")
    names = "key_type, key_id, whole_after, as_of, until, ord" if knows_values else "key_type, key_id, whole_after, as_of, ord"

    def crossed(row: str) -> str:
        # what was amended after the as-of is crossed by the edge of knowledge: its summaries do not hold yet
        return f"""(coalesce({row}.amended_ts > k.{until}, false) OR EXISTS (
                SELECT FROM unnest($5::bigint[]) AS e(edge) WHERE e.edge >= {row}.first_ts AND e.edge < {row}.last_ts
            ))"""

    def needed(row: str, level: int) -> str:
        is_newer = f"{row}.last_ts > k.whole_after"
        return f"({is_newer} AND {row}.first_ts <> ALL (${7 + level}::bigint[]))" if knows_values else is_newer

    spans = ", ".join(
        _LEVEL.format(level=level, below=level - 1, needed=needed("s", level), crossed=crossed("s")) for level in _LEVELS
    )
    # a span that is opened only because its values are not known is told as well, so that they are known from then on
    told = "NOT crossed AND (NOT needed OR $10::boolean)" if knows_values else "NOT crossed AND NOT needed"
    whole = "\n        UNION ALL\n        ".join(
        f"SELECT first_ts, last_ts, summaries, NULL::bytea AS block, false AS is_tail,"
        f" (CASE WHEN needed THEN -{level} ELSE {level} END)::smallint AS level, row_id, amended_ts"
        f" FROM s{level} WHERE {told}"
        for level in _LEVELS
    )
    return f"""
SELECT p.version, p.basis, p.watermark, c.ord, c.first_ts, c.last_ts, c.summaries, c.block, c.is_tail, c.level,
    c.row_id, c.amended_ts{columns}
FROM ofp.projection AS p{shards}
LEFT JOIN LATERAL (
    SELECT k.ord, c.*
    FROM unnest($2::smallint[], $3::text[], $4::bigint[], $6::bigint[]{arrays}) WITH ORDINALITY AS k({names})
    CROSS JOIN LATERAL (
        WITH r{SPAN_LEVELS} AS (SELECT -9223372036854775808 AS low, 9223372036854775807 AS high), {spans}
        {whole}
        UNION ALL
        SELECT c.*
        FROM r0 AS r
        CROSS JOIN LATERAL (
            SELECT c.first_ts, c.last_ts, c.summaries, CASE WHEN {needed("c", 0)} OR {crossed("c")}
                THEN c.block END, false, 0::smallint, c.xmin, c.amended_ts
            FROM ofp.chunk AS c
            WHERE c.projection_id = $1 AND c.key_type = k.key_type AND c.key_id = k.key_id COLLATE "C"
                AND c.first_ts >= r.low AND c.first_ts <= least(r.high, k.as_of)
            OFFSET 0
        ) AS c
        UNION ALL
        SELECT t.after_ts + 1, t.last_ts, ''::bytea, t.block, true, 0::smallint, t.xmin, NULL::bigint
        FROM ofp.tail AS t
        WHERE t.projection_id = $1 AND t.key_type = k.key_type AND t.key_id = k.key_id COLLATE "C" AND octet_length(t.block) > 0
    ) AS c
) AS c ON true
WHERE p.projection_id = $1{only}
ORDER BY c.ord, c.first_ts
"""


_ONE_SHARD = " AND p.shards = 1"
READ_PLAIN = _statement(knows_values=False, only=_ONE_SHARD)
"""Of a projection without key shards, for a reader that holds nothing; it reads nothing where there are several."""
READ_STATE = _statement(knows_values=True, only=_ONE_SHARD)
"""The same for a reader that holds values."""

# The versions of the shards from 1 on, and the open epoch, belong to the same snapshot.
READ_SHARDS = _statement(
    knows_values=True,
    columns=", s.versions, e.version, e.basis, e.watermark",
    shards="""
LEFT JOIN LATERAL (
    SELECT array_agg(s.version ORDER BY s.shard) AS versions FROM ofp.projection_shard AS s WHERE s.projection_id = $1
) AS s ON true
LEFT JOIN ofp.epoch AS e ON e.projection_id = $1""",
)
"""The same of a projection with any number of shards."""


# Every read is a handful of index probes: a plan made for a small table must not turn into a scan of a large one, and the plan
# of a statement of this size takes longer to make than to run.
READ_SETTINGS = {"jit": "off", "enable_seqscan": "off", "plan_cache_mode": "force_generic_plan"}
"""Settings of the server on a connection that reads state."""

NOTHING_HELD: Sequence[Sequence[int]] = ((),) * (SPAN_LEVELS + 1)
"""Of a reader that holds no values of chunks and spans."""


PLAIN_ARGUMENTS = 6


def read_arguments(
    projection_id: int,
    evaluator: Evaluator,
    questions: Sequence[Question],
    *,
    newer: bool = False,
    held_rows: Sequence[Sequence[int]] = NOTHING_HELD,
    marks: bool = False,
) -> tuple[Any, ...]:
    """The arguments of READ_STATE and READ_SHARDS; the first of them, `PLAIN_ARGUMENTS`, are those of READ_PLAIN.

    Args:
        newer: what is newer than the as-of is read too: it will be asked for later.
        held_rows: first times of chunks, of spans of level 1, of level 2 whose values are held: their events need not be sent.
        marks: spans that are read chunk by chunk are told as well (`StoredChunk.is_mark`).
    """
    key_types: list[int] = []
    key_ids: list[str] = []
    whole_after: list[int] = []
    as_of: list[int] = []
    until: list[int] = []
    edges: set[int] = set()
    for question in questions:
        for key_type, key_id in question.keys:
            key_types.append(KEY_TYPE_CODES[key_type])
            key_ids.append(key_id)
            is_whole = (key_type, key_id) in question.whole_keys
            whole_after.append(EARLIEST if is_whole else evaluator.whole_after(question, key_type))
            as_of.append(LATEST if newer else question.as_of)
            until.append(question.as_of)
        edges |= evaluator.edges(question)  # a chunk across another question's edge is sent for nothing: harmless
    return projection_id, key_types, key_ids, whole_after, list(edges), as_of, *map(list, held_rows), marks, until


SPLIT_SECONDS = 2.0
"""How long a read waits for one epoch: shards commit within milliseconds of each other, but for one that dies between the two."""
SPLIT_LOOK_SECONDS = 0.005


@dataclass(frozen=True)
class SplitEpoch:
    """A reading of no one version: some shards of the question's keys have applied an epoch, those in `behind` have not."""

    version: int
    behind: tuple[int, ...]

    def refusal(self, seconds: float, pins: ContextPins) -> ContractError:
        """The refusal after waiting that long in vain."""
        text = f"key {shard_words(self.behind)} did not apply epoch {self.version} within {seconds:g} s, other shards have"
        return unavailable(Reason.PROJECTION_BEHIND, text, pins)


def statement_after(statement: str, rows: Sequence[Sequence[Any]], of_one_shard: str = READ_STATE) -> str:
    """The statement to use after one that gave these rows: of a projection with one shard, the simpler one."""
    return READ_SHARDS if rows and statement is READ_SHARDS and rows[0][12] is not None else of_one_shard


def read_all(statement: str, rows: Sequence[Sequence[Any]], questions: Sequence[Question]) -> list[StoredState | SplitEpoch]:
    """Result of one of the statements."""
    return read_shards(rows, questions) if statement is READ_SHARDS else [*read_states(rows, questions)]


def read_shards(rows: Sequence[Sequence[Any]], questions: Sequence[Question]) -> list[StoredState | SplitEpoch]:
    """Result of READ_SHARDS, question by question: each on the one version that the shards of its keys are at.

    A shard that none of its keys is in does not matter.
    """
    states: list[StoredState | SplitEpoch] = []
    row: Sequence[Any] = rows[0] if rows else [None] * 16
    versions, epoch, basis, watermark = row[12:]
    for question, state in zip(questions, read_states(rows, questions), strict=True):
        if versions is None:
            states.append(state)
            continue
        count = len(versions) + 1
        shards = sorted({shard_of(*key, count) for key in question.keys})
        at = {number: versions[number - 1] if number else state.version for number in shards}
        behind = tuple(number for number, version in at.items() if version == state.version)
        if len(behind) == len(at):
            states.append(state)
        elif behind or set(at.values()) != {epoch}:
            states.append(SplitEpoch(state.version + 1, behind))
        else:
            states.append(StoredState(epoch, basis, watermark, state.chunks))
    return states


def read_states(rows: Sequence[Sequence[Any]], questions: Sequence[Question]) -> list[StoredState]:
    """Result of READ_STATE, question by question: all of them on one basis."""
    if not rows:
        raise unavailable(Reason.STORE_DOWN, "the projection is gone from the store")
    chunks: list[list[StoredChunk]] = [[] for question in questions for _ in question.keys]
    for _, _, _, index, first_ts, last_ts, summaries, block, is_tail, level, row_id, amended_ts, *_ in rows:
        if index is not None:
            chunks[index - 1].append(StoredChunk(first_ts, last_ts, summaries, block, is_tail, level, row_id, amended_ts))
    version, basis, watermark = rows[0][0], rows[0][1], rows[0][2]
    states = []
    start = 0
    for question in questions:
        stop = start + len(question.keys)
        states.append(StoredState(version, basis, watermark, chunks[start:stop]))
        start = stop
    return states
