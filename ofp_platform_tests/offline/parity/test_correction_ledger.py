"""Corrections against the naive oracle: each feature that late events change, and exactly the late events in its windows."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ofp_platform.api.contract_files import contract_schemas
from ofp_platform.identity.graph_knowledge import GraphKnowledge
from ofp_platform.kernel.snapshot import Answer
from ofp_platform.offline.parity.correction_ledger import CorrectionLedger
from ofp_platform.offline.parity.correction_store import CorrectedDay, corrected_days, store_corrections
from ofp_platform.offline.parity.parity import ParityRuns
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.offline.build_refusal import BuildRefused
from ofp_platform.vocabulary.position import Basis
from ofp_platform_tests.oracle import fold, graph
from ofp_platform_tests.oracle.rebuilt import REQUEST, decision_anchor, decision_of, replayed, runs_of, without
from ofp_platform_tests.oracle.resolved_plane import ResolvedPlane
from ofp_platform_tests.oracle.small_plane import SmallPlane, payment
from ofp_platform_tests.oracle.strategies import ACCOUNTS, MERCHANTS, SECOND, START, worlds

STREAMS = (f"corrections-{number}" for number in itertools.count())
KEYS = [*(("account", one) for one in ACCOUNTS), *(("merchant", one) for one in MERCHANTS)]
GROUPS = [
    ("every", "v1"),
    ("lists", "v1"),
    ("ratios", "v2"),
    ("switches", "v1"),
    ("texts", "v1"),
    ("whole", "v1"),
    ("shop", "v1"),
]
CONTEXT = {"amount": 5}
DAY = 86_400 * SECOND


@pytest.fixture(scope="module")
def pool(module_dsn: str) -> Iterator[Pool]:
    with open_pool(module_dsn) as opened:
        yield opened


def spans_of(group: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    for feature in group["features"]:
        if feature["name"] == name:
            return [feature["numerator"], feature["denominator"]] if feature["aggregation"] == "ratio" else [feature]
    (expression,) = [one["expression"] for one in group["on_demand"] if one["name"] == name]
    return [span for feature in group["features"] if feature["name"] in expression for span in spans_of(group, feature["name"])]


def expected(
    plane: SmallPlane, answer: Answer, later: Basis
) -> dict[tuple[str, ...], tuple[Any, Any, list[tuple[str, int]]]] | None:
    """(key type, key id, group, version, feature) -> served, corrected, late events; None: a value that cannot be served."""
    hashed = orjson.loads(answer.hashed)
    then_known, later_known = plane.known(Basis.model_validate(hashed["input_basis"])), plane.known(later)
    before, after = then_known.events, later_known.events
    as_of = fold.micros(hashed["as_of_time_utc"])
    found: dict[tuple[str, ...], tuple[Any, Any, list[tuple[str, int]]]] = {}
    for key_type, key_id in KEYS:
        for group in plane.content["groups"]:
            if group["key_type"] != key_type:
                continue

            def own(known: fold.Known, key: tuple[str, str] = (key_type, key_id)) -> list[fold.Event]:
                events = fold.in_force(known, plane.content, as_of).values()
                return [event for event in events if fold._touches(event, plane.content, *key)]

            then = fold.group_features(group, own(then_known), as_of, CONTEXT)
            now = fold.group_features(group, own(later_known), as_of, CONTEXT)
            for name in then:
                if then[name] == now[name]:
                    continue
                late = sorted(
                    (identity[1], event.ts)
                    for identity, event in after.items()
                    if identity not in before
                    and fold._touches(event, plane.content, key_type, key_id)
                    and fold._feeding(group, [event])
                    and any(
                        as_of - one["delay"] - one["window"] < event.ts <= as_of - one["delay"] and fold._satisfies(event, one)
                        for one in spans_of(group, name)
                    )
                )
                late += [
                    (identity[1], one.ts)
                    for identity, one in later_known.amendments.items()
                    if identity not in then_known.amendments
                    and one.ts <= as_of
                    and fold.amends_key(one, plane.content, key_type, key_id)
                    and any(
                        as_of - span["delay"] - span["window"] < one.target_ts <= as_of - span["delay"]
                        for span in spans_of(group, name)
                    )
                ]
                found[key_type, key_id, group["name"], group["version"], name] = (then[name], now[name], sorted(late))
    return found


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    worlds(max_events=30, partitions=("0000", "0001")), st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(5, 33)
)
def test_corrections_are_the_oracles(pool: Pool, world: Any, sizes: list[int], second: int) -> None:
    plane = SmallPlane(pool, next(STREAMS))
    plane.load(world.records)
    projector, batches = plane.projector(), itertools.cycle(sizes)
    answers: list[Answer] = []
    while True:
        with suppress(ContractError):
            answers.append(plane.reader.answer(plane.request(KEYS, GROUPS, START + second * SECOND, CONTEXT)))
        if projector.apply_available(max_records=next(batches)) is None:
            break
    later = plane.log.ends()
    with tempfile.TemporaryDirectory() as folder:
        ledger = CorrectionLedger(runs_of(plane, replayed(plane, Path(folder) / "fold")), later, REQUEST)
        decisions = [decision_of(answer, plane, f"d-{number}") for number, answer in enumerate(answers)]
        made = list(ledger.corrections(decision_anchor(decision) for decision in decisions))
    for decision, answer in zip(decisions, answers, strict=True):
        wanted = expected(plane, answer, later)
        own = [one for one in made if one.decision_id == decision.decision_id]
        found = {
            (one.key_type.value, one.key_id, one.group_name, one.group_version, one.feature): (
                one.served,
                one.corrected,
                sorted((event.event_id, fold.micros(event.event_time_utc)) for event in one.events),
            )
            for one in own
        }
        assert found == wanted
    tally = ledger.tally
    assert (tally.compared_count, tally.unproven_count) == (len(answers), 0)
    assert tally.corrected_count == len({one.decision_id for one in made})


def test_the_ledger_is_kept_and_told_by_day(pool: Pool, tmp_path: Path) -> None:
    plane = SmallPlane(pool, next(STREAMS))
    plane.append([payment("e-1", SECOND)])
    plane.drain()
    served = plane.reader.answer(plane.request([("account", "a-1")], [("ratios", "v2")], START + 3 * SECOND))
    plane.append([payment("e-2", 2 * SECOND, amount=9, shop="y", status="odd")])
    anchors = [decision_anchor(decision_of(served, plane))]
    runs = runs_of(plane, replayed(plane, tmp_path / "fold"))
    made = list(CorrectionLedger(runs, plane.log.ends(), REQUEST).corrections(anchors))
    assert {one.feature for one in made} == {"evenness", "share", "spread", "variation"}
    assert all([event.event_id for event in one.events] == ["e-2"] for one in made)
    assert store_corrections(pool, made) == 4
    otherwise = made[0].model_copy(update={"corrected": 77})
    with pytest.raises(BuildRefused, match=f"decision {otherwise.decision_id} was corrected otherwise"):
        store_corrections(pool, [otherwise])
    Draft202012Validator(contract_schemas()["ofs_correction_v0.schema.json"]).validate(otherwise.model_dump(mode="json"))
    assert store_corrections(pool, made) == 0
    assert corrected_days(pool, REQUEST) == [CorrectedDay(START // DAY * DAY, 1, 4)]

    lost = runs_of(plane, replayed(plane, tmp_path / "lost", change=without("e-1")))
    ledger = CorrectionLedger(lost, plane.log.ends(), REQUEST)
    assert list(ledger.corrections(anchors)) == []
    assert (ledger.tally.compared_count, ledger.tally.unproven_count) == (0, 1)
    short = replayed(plane, tmp_path / "short", basis=Basis.model_validate(orjson.loads(served.hashed)["input_basis"]))
    with pytest.raises(ValueError, match="the replay ends"):
        list(CorrectionLedger(runs_of(plane, short), plane.log.ends(), REQUEST).corrections(anchors))


@pytest.fixture
def linked(dsn: str) -> Iterator[ResolvedPlane]:
    """A plane whose groups resolve identities; groups of its names mean something else elsewhere."""
    with open_pool(dsn) as opened:
        yield ResolvedPlane(opened)


def links_of(*links: tuple[str, str, int]) -> list[graph.SaidLink]:
    return [graph.SaidLink("account", one, other, START + second * SECOND, one.encode(), True) for one, other, second in links]


def corrections_of(
    made: ResolvedPlane, answer: Answer, folder: Path
) -> dict[str, tuple[Any, Any, list[str], list[tuple[str, str]]]]:
    """Feature to what was served and would have been, its late events, and its late links."""
    plane, context = made.plane, made.context()
    runs = runs_of(plane, replayed(plane, folder, registry=plane.registry)).runs
    parity = ParityRuns(plane.log.stream_name, plane.pins, runs, context)
    ledger = CorrectionLedger(parity, plane.log.ends(), REQUEST, GraphKnowledge(context).newest)
    found = list(ledger.corrections([decision_anchor(decision_of(answer, plane))]))
    assert (ledger.tally.compared_count, ledger.tally.unproven_count) == (1, 0)
    assert store_corrections(made.pool, found) == len(found)
    return {
        one.feature: (
            one.served,
            one.corrected,
            [event.event_id for event in one.events],
            [(link.member, link.canonical) for link in one.links],
        )
        for one in found
    }


def test_a_late_event_of_another_member_corrects_the_entity(linked: ResolvedPlane, tmp_path: Path) -> None:
    made, plane = linked, linked.plane
    plane.append([payment("e-1", SECOND), payment("e-2", SECOND, account_id="a-2")])
    plane.drain()
    made.link(links_of(("a-2", "a-1", 0)))
    answer = made.check([("account", "a-1")], [("whole", "v1")], START + 3 * SECOND)
    plane.append([payment("e-3", 2 * SECOND, account_id="a-2", amount=9)])
    found = corrections_of(made, answer, tmp_path / "fold")
    assert found
    assert {tuple(events) for _, _, events, _ in found.values()} == {("e-3",)}
    assert all(links == [] for *_, links in found.values())


def test_a_late_link_corrects_what_was_resolved_without_it(linked: ResolvedPlane, tmp_path: Path) -> None:
    made, plane = linked, linked.plane
    plane.append([payment(f"e-{number}", SECOND, account_id=f"a-{number}", amount=number) for number in (1, 2, 3)])
    plane.drain()
    made.link(links_of(("a-2", "a-1", 0)))
    key, groups, as_of = [("account", "a-1")], [("whole", "v1"), ("ratios", "v2")], START + 3 * SECOND
    answer = made.check(key, groups, as_of)
    made.link(links_of(("a-3", "a-2", 1), ("a-9", "a-8", 1), ("a-8", "a-1", 9)))  # of others; and one that holds later
    corrected = made.check(key, groups, as_of)
    features = {
        name: value
        for group in orjson.loads(corrected.body)["snapshot"]["by_key"][0]["by_group"]
        for name, value in group["features"].items()
    }
    found = corrections_of(made, answer, tmp_path / "fold")
    assert found
    for feature, (served, value, events, links) in found.items():
        assert value == features[feature] != served
        assert events == []  # they were all known
        assert links == [("a-3", "a-2")]
    assert not {"evenness", "share", "spread", "variation"} & found.keys()  # of a group that does not resolve


def test_a_decision_whose_graph_is_not_at_hand_is_unproven(linked: ResolvedPlane, tmp_path: Path) -> None:
    made, plane = linked, linked.plane
    plane.append([payment("e-1", SECOND)])
    plane.drain()
    made.link([])
    answer = made.check([("account", "a-1")], [("whole", "v1")], START + 3 * SECOND)
    runs = runs_of(plane, replayed(plane, tmp_path / "fold", registry=plane.registry))
    ledger = CorrectionLedger(runs, plane.log.ends(), REQUEST)
    assert list(ledger.corrections([decision_anchor(decision_of(answer, plane))])) == []
    assert (ledger.tally.compared_count, ledger.tally.unproven_count) == (0, 1)
