"""Rows of groups that resolve identities against the brute force: each at its own knowledge of events and of links."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ofp_platform.identity.context_events import PlacedLink
from ofp_platform.identity.context_replay import ContextReplay, GraphUnknown
from ofp_platform.identity.entities import LinkEvent
from ofp_platform.identity.graph_knowledge import GraphKnowledge
from ofp_platform.offline.datasets import resolved_rows
from ofp_platform.offline.datasets.row_graphs import RowGraphs
from ofp_platform.offline.replay.decision_basis import RecordedDecision
from ofp_platform.registry.pack import pack_content
from ofp_platform.vocabulary.identity_link import graph_version_of
from ofp_platform.vocabulary.offline.build_intent import AsOfBasis, EntityTime, PerEntity, PerEvent
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.position import DENSE, make_basis
from ofp_platform.vocabulary.serving import GraphVersion
from ofp_platform_tests.offline.datasets.test_replayed_features import (
    admissions,
    everything,
    features,
    known,
    micros,
    payment,
    replays,
)
from ofp_platform_tests.oracle import fold, graph
from ofp_platform_tests.oracle.fold import Record, time_text
from ofp_platform_tests.oracle.replayed import GROUPS, Built, basis_of, build, group_refs, record_batches
from ofp_platform_tests.oracle.resolved_plane import resolving_registry
from ofp_platform_tests.oracle.strategies import ACCOUNTS, MERCHANTS, SECOND, START, times

CONTENT = pack_content(resolving_registry().pack)
PARTITIONS = ("0", "1")
BASES = (AsOfBasis.EVENT_TIME, AsOfBasis.INGEST_TIME)


@dataclass(frozen=True)
class Admitted:
    """A link as it was admitted to a partition of the context stream."""

    link: graph.SaidLink
    partition: str
    admitted_at: int


def context_of(admitted: Sequence[Admitted]) -> ContextReplay:
    """The context stream with these, each partition in this order; offsets count in steps of two."""
    offsets = dict.fromkeys(PARTITIONS, 0)
    links = []
    for number, each in enumerate(admitted):
        link = each.link
        event = LinkEvent(link.key_type, link.member, link.canonical, link.effective, link.identity, link.is_link)
        digest = sha256(str(number).encode()).digest()
        links.append((each.partition, PlacedLink(offsets[each.partition], f"l-{number}", digest, each.admitted_at, event)))
        offsets[each.partition] += 2
    ends = {name: DENSE.basis(name, offset + 1) for name, offset in offsets.items()}
    return ContextReplay("context", make_basis("context", ends), tuple(links))


@st.composite
def contexts(draw: st.DrawFn) -> list[Admitted]:
    made = []
    for number in range(draw(st.integers(0, 8))):
        key_type, ids = draw(st.sampled_from((("account", (*ACCOUNTS, "a-9")), ("account", ACCOUNTS), ("merchant", MERCHANTS))))
        member, canonical = draw(st.lists(st.sampled_from(ids), min_size=2, max_size=2, unique=True))
        effective = START + draw(st.integers(-2, 40)) * SECOND + number
        is_link = draw(st.sampled_from((True, True, True, False)))
        link = graph.SaidLink(key_type, member, canonical, effective, bytes([number]), is_link)
        made.append(Admitted(link, draw(st.sampled_from(PARTITIONS)), START + draw(st.integers(-1, 40)) * SECOND))
    return made


def known_by(admitted: Sequence[Admitted], moment: int) -> list[graph.SaidLink]:
    """The links that were admitted by a moment, each with all before it in its partition."""
    links = []
    for partition in PARTITIONS:
        for each in (each for each in admitted if each.partition == partition):
            if each.admitted_at > moment:
                break
            links.append(each.link)
    return links


def values(
    events: Sequence[fold.Event], keys: Mapping[str, str | None], as_of: int, links: Sequence[graph.SaidLink]
) -> dict[str, Any]:
    """The features of keys whose links are known."""
    made: dict[str, Any] = {}
    for group in CONTENT["groups"]:
        if (group["name"], group["version"]) not in GROUPS or group["key_type"] not in keys:
            continue
        key_type, key_id = group["key_type"], keys[group["key_type"]]
        members: list[str] = []
        if key_id is not None:
            members = graph.entity(links, key_type, key_id, as_of)[1] if group.get("identity") == "resolved" else [key_id]
        own = [event for event in events if any(fold._touches(event, CONTENT, key_type, member) for member in members)]
        for name, value in fold.group_features({**group, "on_demand": []}, own, as_of, {}).items():
            made[f"{group['name']}_{group['version']}__{name}"] = value if key_id is not None else None
    return made


def built_rows(built: Built) -> list[dict[str, Any]]:
    return [
        {
            **{name: micros(value) if isinstance(value, datetime) else value for name, value in row.items()},
            **features(row),
        }
        for row in built.rows
    ]


def rows_or_nothing(
    records: Sequence[Record], scope: PerEvent, basis: AsOfBasis, folder: Path, **more: Any
) -> list[dict[str, Any]] | None:
    """The rows of a build; None where it was refused because there are none, which is the only refusal."""
    try:
        return built_rows(build(record_batches(records), scope, basis, folder, registry=resolving_registry(), **more))
    except BuildRefused as refused:
        refusal = refused.reason
    assert refusal is BuildReason.NOTHING_TO_BUILD
    return None


quiet = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=60)


@quiet
@given(replays(), contexts(), st.sampled_from(BASES), st.integers(-1, 41), st.sampled_from((1, 3)))
def test_rows_of_events_know_links_by_their_basis(
    records: list[Record], admitted: list[Admitted], basis: AsOfBasis, end: int, shards: int
) -> None:
    context, whole, moments = context_of(admitted), known(records), admissions(records)
    pinned_at = START + end * SECOND
    pinned = GraphKnowledge(context).version_at(pinned_at)
    expected = []
    for identity, event in whole.events.items():
        if event.event_type != "payment" or not event.groups.issuperset(GROUPS):
            continue
        until = moments[identity] if basis is AsOfBasis.INGEST_TIME else 2**62
        part = fold.part_of(whole, lambda name, until=until: moments[name] <= until)  # type: ignore[misc]
        keys = {"account": event.payload.get("account_id"), "merchant": event.payload.get("merchant_id")}
        links = known_by(admitted, min(pinned_at, until))
        row = values(list(fold.in_force(part, CONTENT, event.ts).values()), keys, event.ts, links)
        expected.append(((event.ts, event.tie), {"event_id": identity[1], **row}))
    scope = PerEvent(event_types=("payment",))
    with tempfile.TemporaryDirectory() as folder:
        graphs = RowGraphs(context, pinned)
        rows = rows_or_nothing(records, scope, basis, Path(folder), graphs=graphs, shards=shards)
    assert (rows is not None) is bool(expected)
    if rows is None:
        return
    names = {version.graph_version for version in graphs.versions}
    assert {row["graph_version"] for row in rows} <= names
    if basis is AsOfBasis.EVENT_TIME:
        assert names == {pinned.graph_version}
    chosen = [{name: row[name] for name in one} for row, (_, one) in zip(rows, sorted(expected), strict=True)]
    assert chosen == [row for _, row in sorted(expected)]


@quiet
@given(replays(), contexts(), st.data())
def test_rows_of_decisions_know_the_version_that_was_recorded(
    records: list[Record], admitted: list[Admitted], data: st.DataObject
) -> None:
    ends, context = everything(records), context_of(admitted)
    knowledge = GraphKnowledge(context)
    payments = [one.envelope for one in records if one.envelope["event_type"] == "payment"]
    names = sorted({(envelope["event_type"], envelope["event_id"]) for envelope in payments})
    decisions, links_of = [], {}
    for number in range(6 if names else 0):
        event_type, event_id = data.draw(st.sampled_from(names))
        basis = basis_of({name: data.draw(st.just(end) | st.integers(0, end)) for name, end in ends.items()})
        counts = [data.draw(st.just(len(links)) | st.integers(0, len(links))) for links in knowledge.links]
        links_of[f"d-{number}"] = [
            admitted_link
            for partition, count in zip(PARTITIONS, counts, strict=True)
            for admitted_link in [each.link for each in admitted if each.partition == partition][:count]
        ]
        version = knowledge.version(counts)
        as_of = data.draw(times(45))
        decisions.append(RecordedDecision(f"d-{number}", event_type, event_id, as_of, basis, graph_version=version))
    whole = known(records)
    expected = {}
    for decision in decisions:
        part = known(records, {one.partition_id: int(one.offset) for one in decision.basis.partitions})
        events = list(fold.in_force(part, CONTENT, decision.as_of).values())
        for identity, event in whole.events.items():
            name = event.event_type, identity[1]
            if name == (decision.event_type, decision.event_id) == ("payment", name[1]) and event.groups.issuperset(GROUPS):
                keys = {"account": event.payload.get("account_id"), "merchant": event.payload.get("merchant_id")}
                row = values(events, keys, decision.as_of, links_of[decision.decision_id])
                expected[decision.decision_id, event.ts, event.tie] = {
                    "decision_id": decision.decision_id,
                    "graph_version": decision.graph_version.graph_version if decision.graph_version else None,
                    **row,
                }
    with tempfile.TemporaryDirectory() as folder:
        scope, graphs = PerEvent(event_types=("payment",)), RowGraphs(context, None)
        rows = rows_or_nothing(records, scope, AsOfBasis.DECISION, Path(folder), decisions=decisions, graphs=graphs)
    assert (rows is not None) is bool(expected)
    if rows is None:
        return
    wanted = sorted(expected.items(), key=lambda one: (one[0][1], one[0][2], one[0][0]))
    assert [{name: row[name] for name in one} for row, (_, one) in zip(rows, wanted, strict=True)] == [one for _, one in wanted]


def ring(second: int, member: str = "a-2") -> Admitted:
    """A link to a-1 that holds from the start, admitted at a second."""
    return Admitted(graph.SaidLink("account", member, "a-1", START, member.encode(), True), "0", START + second * SECOND)


def counts(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    return [row["every_v1__a_count"] for row in rows]


def entity_scope(*times_of: tuple[str, int]) -> PerEntity:
    rows = [EntityTime(key_id=name, as_of_time_utc=time_text(START + second * SECOND)) for name, second in times_of]
    return PerEntity(key_type="account", rows=tuple(rows))


EVERY = tuple(ref for ref in group_refs() if ref.group_name == "every")


def test_a_ring_is_in_the_rows_from_when_it_is_known(tmp_path: Path) -> None:
    records = [payment(number, f"a-{number % 3 + 1}", number) for number in range(6)]
    admitted = [ring(3), ring(5, "a-3")]
    context = context_of(admitted)
    pinned = GraphKnowledge(context).version_at(START + 9 * SECOND)
    scope = entity_scope(("a-1", 2), ("a-1", 4), ("a-2", 4), ("a-1", 5), ("a-9", 5))

    def rows(basis: AsOfBasis, version: GraphVersion) -> list[dict[str, Any]]:
        folder = tmp_path / f"{basis.value}-{version.graph_version}"
        graphs = RowGraphs(context, version)
        made = build(record_batches(records), scope, basis, folder, groups=EVERY, registry=resolving_registry(), graphs=graphs)
        return made.rows

    known_then = rows(AsOfBasis.INGEST_TIME, pinned)
    assert [(row["account_id"], row["every_v1__a_count"]) for row in known_then] == [
        ("a-1", 1),
        ("a-1", 4),
        ("a-2", 4),
        ("a-1", 6),
        ("a-9", 0),
    ]
    assert len({row["graph_version"] for row in known_then}) == 3
    assert counts(rows(AsOfBasis.EVENT_TIME, pinned)) == [3, 5, 5, 6, 0]
    early = GraphKnowledge(context).version_at(START + 3 * SECOND)
    assert counts(rows(AsOfBasis.INGEST_TIME, early)) == [1, 4, 4, 4, 0]


@pytest.mark.parametrize(
    ("where", "defect", "told"),
    [
        ("resolved_rows.RowEntities._entities", "of every version", "is not what the events give"),
        ("row_graphs.GraphKnowledge.by_admission", "of tomorrow", "its graph version knows a link that was admitted later"),
    ],
)
def test_a_link_known_too_early_is_a_leak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, defect: str, told: str
) -> None:
    records = [payment(number, f"a-{number % 3 + 1}", number) for number in range(6)]
    context = context_of([ring(4)])
    graphs = RowGraphs(context, GraphKnowledge(context).version_at(START + 9 * SECOND))
    entities, by_admission = resolved_rows.RowEntities._entities, GraphKnowledge.by_admission

    def with_all_links(self: resolved_rows.RowEntities, key_id: str, rows: Any) -> Any:
        self._counts = np.full_like(self._counts, 2**62)
        return entities(self, key_id, rows)

    def of_tomorrow(self: GraphKnowledge, moments: Any) -> Any:
        return by_admission(self, moments + 2 * SECOND)

    patched = with_all_links if defect == "of every version" else of_tomorrow
    monkeypatch.setattr(f"ofp_platform.offline.datasets.{where}", patched)
    scope = entity_scope(("a-1", 3), ("a-1", 5))
    registry = resolving_registry()
    with pytest.raises(BuildRefused, match=f"LEAKAGE_DETECTED.*{told}"):
        build(record_batches(records), scope, AsOfBasis.INGEST_TIME, tmp_path, groups=EVERY, registry=registry, graphs=graphs)


def test_a_decision_without_its_version_makes_no_row(tmp_path: Path) -> None:
    context = context_of([ring(1)])
    elsewhere = GraphKnowledge(context_of([ring(1)] * 3)).version([3, 0])
    for version, told in ((None, "records no version"), (elsewhere, "the context stream does not reach it")):
        decision = RecordedDecision("d", "payment", "e-0", START, basis_of({"p0": 1}), graph_version=version)
        with pytest.raises(BuildRefused, match=f"REPLAY_INCOMPLETE.*decision d .*{told}"):
            build(
                record_batches([payment(0, "a-1", 1)]),
                PerEvent(event_types=("payment",)),
                AsOfBasis.DECISION,
                tmp_path / told,
                decisions=[decision],
                groups=EVERY,
                registry=resolving_registry(),
                graphs=RowGraphs(context, None),
            )


def test_a_pinned_version_that_the_links_do_not_give_is_refused() -> None:
    context = context_of([ring(1)])
    named = GraphKnowledge(context).version([1, 0]).model_copy(update={"graph_version": "g_other"})
    with pytest.raises(GraphUnknown, match="is not the name of the graph version at its basis"):
        RowGraphs(context, named)


def test_a_version_of_another_history_is_refused() -> None:
    context = context_of([ring(1)])
    lost = context.ends.partitions[0].model_copy(update={"incarnation": "0123456789ab"})
    version = graph_version_of(make_basis("context", {"0": lost, "1": context.ends.partitions[1]}))
    with pytest.raises(GraphUnknown, match="of a history that the context stream does not have"):
        context.basis_of(version)


def test_a_clock_that_went_back_hides_what_stands_behind_it() -> None:
    knowledge = GraphKnowledge(context_of([ring(5), ring(2, "a-3")]))
    moments = np.array([START + second * SECOND for second in (1, 2, 4, 5)])
    assert knowledge.by_admission(moments)[:, 0].tolist() == [0, 0, 0, 2]
