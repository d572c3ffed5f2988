"""The graph in PostgreSQL: from a stream in any order, with copies and faults, to the entities of the brute force."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ofp_platform.identity import graph_state
from ofp_platform.identity.entities import entity_of
from ofp_platform.identity.graph_projector import GraphProjector
from ofp_platform.identity.graph_state import (
    GraphConflict,
    anomalies,
    apply_records,
    failures,
    find_graph,
    open_graph,
    query_links,
    unmet_unlinks,
)
from ofp_platform.identity.queries import GraphReader
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform.vocabulary.identity import ContextPins, FeatureKey, KeyType
from ofp_platform.vocabulary.identity_link import graph_version_of
from ofp_platform.vocabulary.times import format_time
from ofp_platform_tests.identity.test_entities import IDS, facts, links
from ofp_platform_tests.oracle import graph
from ofp_platform_tests.oracle.rows_read import rows_read

PINS = ContextPins(scenario_id="s", run_id="r", manifest_fingerprint="0" * 64, parameter_hash="1" * 64)
SKEW = 300_000_000
_streams = count()


@pytest.fixture(scope="module")
def pool(module_dsn: str) -> Iterator[Pool]:
    with open_pool(module_dsn) as opened:
        yield opened


def new_log(pool: Pool, partitions: int = 2) -> PostgresLog:
    return PostgresLog.create(pool, f"context-{next(_streams)}", partitions, "payload.member")


def projector(pool: Pool, log: PostgresLog) -> GraphProjector:
    return GraphProjector(pool, log, PINS, SKEW)


def envelope(event_id: str, member: str, canonical: str, **more: Any) -> dict[str, Any]:
    effective = format_time(more.pop("at", 0))
    payload = {"key_type": "account", "member": member, "canonical": canonical, "effective_time_utc": effective}
    return {
        "event_id": event_id,
        "event_type": "identity_link",
        "schema_version": "1",
        "ts_utc": "1970-01-01T00:00:00Z",
        **PINS.wire(),
        "payload": payload,
        **more,
    }


def as_envelope(link: graph.SaidLink, number: int) -> dict[str, Any]:
    made = envelope(f"e-{number}", link.member, link.canonical, at=link.effective)
    made["payload"]["key_type"] = link.key_type
    return made if link.is_link else {**made, "event_type": "identity_unlink"}


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(links(), st.data())
def test_a_stream_gives_the_entities_of_the_brute_force(pool: Pool, events: list[graph.SaidLink], data: st.DataObject) -> None:
    log = new_log(pool)
    envelopes = data.draw(st.permutations([as_envelope(link, number) for number, link in enumerate(events)] * 2))
    for start in range(0, len(envelopes), 7):
        assert not log.append(envelopes[start : start + 7]).refusals
    folding = projector(pool, log)
    while folding.apply_available(data.draw(st.sampled_from((1, 3, 100)))) is not None:
        pass
    row = folding.graph()
    assert (row.basis, row.records, row.links, row.copies) == (log.ends(), len(envelopes), len(events), len(events))
    with pool.connection() as connection:
        stored = query_links(connection, log.stream_name, PINS, [("account", key_id) for key_id in IDS])
    assert stored is not None
    assert stored.graph_version == graph_version_of(log.ends())
    ties = [(e.member, e.canonical, e.effective) for e in events if e.key_type == "account"]
    time = data.draw(st.integers(-1, 6))
    if len(set(ties)) == len(ties):  # else the identities of the events decide, which have none here
        for key_id in IDS:
            assert facts(entity_of(stored.links, "account", key_id, time)) == graph.entity(events, "account", key_id, time)
    for key_id in IDS:  # what is reached from one id is all that its entity needs
        with pool.connection() as connection:
            near = query_links(connection, log.stream_name, PINS, [("account", key_id)])
        assert near is not None
        assert entity_of(near.links, "account", key_id, time) == entity_of(stored.links, "account", key_id, time)


def test_what_is_no_link_is_told_with_its_position(pool: Pool) -> None:
    log = new_log(pool, 1)
    bad_id = {**envelope("f", "4111111111111111", "a"), "event_id": "f"}
    records = [
        envelope("a", "b", "a"),
        envelope("b", "a", "a"),
        {**envelope("c", "b", "a"), "event_type": "arrival"},
        envelope("d", "b", "a", run_id="another"),
        envelope("e", "b", "a", parameter_hash="9" * 64),
        {**envelope("g", "b", "a"), "schema_version": "9"},
        {**envelope("h", "b", "a"), "payload": {"key_type": "account", "member": "b"}},
        {
            **envelope("i", "b", "a"),
            "amends": {"event_class": "identity_link", "event_id": "a", "ts_utc": "1970-01-01T00:00:00Z", "kind": "void"},
        },
        envelope("a", "b", "a", at=5),
        {**envelope("j", "c", "a", at=3), "event_type": "identity_unlink"},
    ]
    receipt = log.append([*records, bad_id], lambda _: 0)
    assert [refusal.index for refusal in receipt.refusals] == [len(records)]  # a card number comes into no log
    late = envelope("k", "b", "a", ts_utc=format_time(SKEW + 1))
    assert log.append([late], lambda _: 0).appended == 1
    folding = projector(pool, log)
    assert folding.apply_available() is not None
    assert folding.apply_available() is None
    row = folding.graph()
    assert (row.records, row.links, row.copies, row.ignored_records, row.other_run, row.failures) == (11, 3, 0, 1, 1, 6)
    with pool.connection() as connection:
        told = failures(connection, row, 10)
        assert [(int(offset), reason) for _, offset, reason, _ in told] == [
            (1, "MALFORMED_PAYLOAD"),
            (4, "WRONG_PINS"),
            (5, "UNKNOWN_SCHEMA_VERSION"),
            (6, "MALFORMED_PAYLOAD"),
            (7, "AMENDMENT_NOT_DECLARED"),
            (10, "FUTURE_EVENT"),
        ]
        assert "one entity" in told[0][3]
        assert told[3][3] == "payload.canonical: Field required"
        assert (unmet_unlinks(connection, row), anomalies(connection, row)) == (1, 1)


def test_a_graph_that_somebody_moved_is_not_moved_twice(pool: Pool) -> None:
    log = new_log(pool)
    log.append([envelope(f"e-{number}", f"m-{number}", "a") for number in range(200)])
    before = projector(pool, log).graph()
    threads = [threading.Thread(target=lambda: [*iter(projector(pool, log).apply_available, None)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    row = projector(pool, log).graph()
    assert (row.records, row.links, row.copies, row.basis) == (200, 200, 0, log.ends())
    with pool.connection() as connection, pytest.raises(GraphConflict):
        apply_records(connection, before, log.ends(), {}, 200)
    assert projector(pool, log).graph() == row


def test_queries_name_their_version(pool: Pool) -> None:
    log = new_log(pool)
    reader = GraphReader(pool, log.stream_name, PINS, most_members=3)
    key = FeatureKey(key_type=KeyType.ACCOUNT, key_id="b")
    with pytest.raises(ContractError, match="nobody has folded the context stream") as caught:
        reader.resolve(key, 9)
    assert (caught.value.reason, caught.value.retryable) == (Reason.IEG_DOWN, True)
    folding = projector(pool, log)
    empty = folding.graph()
    assert reader.profile(key, 9).graph_version == graph_version_of(empty.basis)
    assert [one.key_id for one in reader.members(key, 9)] == ["b"]
    log.append([envelope("1", "b", "a", at=5), envelope("2", "c", "a", at=7), envelope("3", "c", "x", at=8)])
    folding.apply_available()
    assert reader.resolve(key, 9).key_id == "a"
    assert reader.resolve(key, 4).key_id == "b"
    assert [one.key_id for one in reader.members(key, 7)] == ["a", "b", "c"]
    profile = reader.profile(FeatureKey(key_type=KeyType.ACCOUNT, key_id="a"), 9)
    assert [(one.member, one.canonical, one.counts) for one in profile.neighbours] == [("b", "a", True), ("c", "a", False)]
    assert [(one.kind, one.key_ids) for one in profile.conflicts] == [("several_canonicals", ("c", "a", "x"))]
    assert reader.neighbours(profile.key, 9) == profile.neighbours
    assert profile.graph_version == graph_version_of(log.ends())
    log.append([envelope(f"m-{number}", f"m-{number}", "a") for number in range(4)])
    folding.apply_available()
    with pytest.raises(ContractError, match="more than 3 members") as caught:
        reader.resolve(key, 9)
    assert caught.value.reason is Reason.TOO_MANY_MEMBERS


def test_more_ids_than_are_read_are_refused(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    log = new_log(pool)
    log.append([envelope(f"e-{number}", f"m-{number}", f"m-{number + 1}") for number in range(30)])
    projector(pool, log).apply_available()
    with pool.connection() as connection:
        assert find_graph(connection, "no-such-stream", PINS) is None
        assert open_graph(connection, log.stream_name, PINS).links == 30
    monkeypatch.setattr(graph_state, "MOST_IDS", 5)
    with pytest.raises(ContractError, match="more ids hang together"):
        GraphReader(pool, log.stream_name, PINS).resolve(FeatureKey(key_type=KeyType.ACCOUNT, key_id="m-0"), 9)


def test_the_links_of_an_id_are_looked_up_also_where_the_table_was_never_analysed(dsn: str) -> None:
    with open_pool(dsn, max_size=1) as own:
        log = new_log(own)
        log.append([envelope(f"e-{number}", f"m-{number}", f"c-{number % 1_000}") for number in range(2_000)])
        projector(own, log).apply_available()
        keys = [("account", "m-7"), ("account", "c-8")]
        before = rows_read(own, ["entity_link"])["entity_link"]
        with own.connection() as connection:
            for _ in range(7):  # from the sixth on the plan may be one for all arguments
                reading = query_links(connection, log.stream_name, PINS, keys)
                assert reading is not None
                near = {(link.member, link.canonical) for key in keys for link in reading.links.about(key[0], [key[1]])}
                assert near == {("m-7", "c-7"), ("m-8", "c-8"), ("m-1008", "c-8")}
        assert rows_read(own, ["entity_link"])["entity_link"] - before < 7 * 50
