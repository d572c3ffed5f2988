"""The statement reads of a key with many chunks no more than it returns, and the spans that it has to open."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import RawCursor

from ofp_platform.online.serving.request import parse_request
from ofp_platform.online.serving.state_statement import READ_STATE, read_arguments
from ofp_platform.online.state.chunk_spans import SPAN_LEVELS
from ofp_platform.registry.question import check_request
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform_tests.oracle.small_plane import SmallPlane, payment
from ofp_platform_tests.oracle.strategies import SECOND, START

STREAMS = (f"statement-{number}" for number in itertools.count())
EVENTS = 600


@pytest.fixture(scope="module")
def pool(module_dsn: str) -> Iterator[Pool]:
    with open_pool(module_dsn) as opened:
        yield opened


def scans(node: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """(table, rows read from it) of each scan in a plan that was executed."""
    if node.get("Relation Name") in ("chunk", "span"):
        removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Join Filter", 0)
        yield node["Relation Name"], round((node["Actual Rows"] + removed) * node["Actual Loops"])
    for below in node.get("Plans", ()):
        yield from scans(below)


@pytest.mark.parametrize("plan_mode", ["force_custom_plan", "force_generic_plan"])
def test_what_no_edge_falls_into_is_read_as_the_highest_span(pool: Pool, plan_mode: str) -> None:
    plane = SmallPlane(pool, next(STREAMS), chunk_events=1, span_chunks=4, tail_bytes=0)
    step = 20 * SECOND // EVENTS
    plane.append([payment(f"e-{number}", number * step, amount=number) for number in range(EVENTS)])
    plane.drain(sizes=iter([100] * 6))
    body = plane.request([("account", "a-1")], [("ratios", "v2")], START + EVENTS * step)
    question = check_request(parse_request(body, plane.limits), plane.registry, plane.pins, plane.limits)
    arguments = read_arguments(plane.projection_id, plane.evaluator, [question])
    edges, whole_after, as_of = len(arguments[4]), arguments[3][0], arguments[5][0]
    with pool.connection() as connection, connection.transaction(), RawCursor(connection) as cursor:
        cursor.execute(f"SET LOCAL plan_cache_mode = {plan_mode}")
        spans = "SELECT level, count(*), count(*) FILTER (WHERE last_ts > $4 AND first_ts <= $5) FROM ofp.span"
        owner = "(projection_id, key_type, key_id) = ($1, $2, $3)"
        cursor.execute(
            f"{spans} WHERE {owner} GROUP BY level ORDER BY level", (plane.projection_id, 0, "a-1", whole_after, as_of)
        )
        levels = cursor.fetchall()
        cursor.execute(READ_STATE, arguments, prepare=True)
        returned = len(cursor.fetchall())
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {READ_STATE}", arguments, prepare=True)
        ((plan,),) = cursor.fetchall()
    assert [level for level, _, _ in levels] == list(range(1, SPAN_LEVELS + 1))
    needed_whole = sum(count for _, _, count in levels)
    read = sum(rows for _, rows in scans(plan[0]["Plan"]))
    assert returned <= read <= returned + SPAN_LEVELS * edges + needed_whole, (levels, edges)
    assert returned < 0.6 * EVENTS, (returned, levels)
