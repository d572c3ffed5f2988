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
from ofp_platform.kernel.snapshot import Answer
from ofp_platform.offline.parity.correction_ledger import CorrectionLedger
from ofp_platform.offline.parity.correction_store import CorrectedDay, corrected_days, store_corrections
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.offline.build_refusal import BuildRefused
from ofp_platform.vocabulary.position import Basis
from ofp_platform_tests.oracle import fold
from ofp_platform_tests.oracle.rebuilt import REQUEST, decision_anchor, decision_of, replayed, runs_of, without
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
