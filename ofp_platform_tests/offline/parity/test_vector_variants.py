"""Vectors otherwise against the naive oracle, and planted changes, each of which is found as the cause of its flip."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ofp_platform.decisions.event_reader import ReadEvent
from ofp_platform.decisions.what_if import Alternative, Flip, WhatIf, WhatIfTally
from ofp_platform.offline.parity.other_pack import OtherPack
from ofp_platform.offline.parity.parity import ParityRuns
from ofp_platform.offline.parity.vector_variants import Otherwise, VectorVariants
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.pack import load_pack
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.loop.bundle import Comparison, Guardrail
from ofp_platform.vocabulary.loop.exact_model import ExactModel, LinearForm, PayloadInput
from ofp_platform.vocabulary.loop.flip_cause import Cause, NotRebuilt
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.loop.posture import Mode
from ofp_platform.vocabulary.position import Basis, Position, make_basis
from ofp_platform.vocabulary.serving import FeatureGroupRef
from ofp_platform_tests.oracle import fold, graph
from ofp_platform_tests.oracle.planted_flips import AT, LISTS, WHOLE, PlantedRun, amendment, past_decision, ready_bundle, rule
from ofp_platform_tests.oracle.rebuilt import decision_of, replayed, runs_of, without
from ofp_platform_tests.oracle.resolved_plane import ResolvedPlane, resolving, resolving_registry
from ofp_platform_tests.oracle.small_plane import RUN_CONFIG, SmallPlane
from ofp_platform_tests.oracle.strategies import ACCOUNTS, MERCHANTS, SECOND, START, worlds

STREAMS = (f"variants-{number}" for number in itertools.count())
KEYS = [*(("account", one) for one in ACCOUNTS), *(("merchant", one) for one in MERCHANTS)]
GROUPS = [("every", "v1"), ("lists", "v1"), ("ratios", "v2"), ("texts", "v1"), ("whole", "v1"), ("shop", "v1")]
CONTEXT = {"amount": 5}
KINDS = (Cause.DATA_LATE_EVENT, Cause.DATA_AMENDMENT, Cause.CAUSAL_READ)
RULES = (rule(LISTS, "payments", 3), rule(WHOLE, "a_top", 100, Outcome.DECLINE))


@pytest.fixture(scope="module")
def pool(module_dsn: str) -> Iterator[Pool]:
    with open_pool(module_dsn) as opened:
        yield opened


@pytest.fixture
def run(dsn: str) -> Iterator[PlantedRun]:
    with open_pool(dsn) as opened:
        yield PlantedRun(ResolvedPlane(opened), ready_bundle(resolving_registry(), RULES))


def part_known(plane: SmallPlane, recorded: Basis, event: Position, changed: frozenset[Cause]) -> fold.Known:
    """What is known with these changes, record by record."""
    assert isinstance(event.offset, int)
    then = plane.known(recorded)
    ends = {part.partition_id: int(part.offset) for part in recorded.partitions}
    ends[event.partition_id] = max(ends.get(event.partition_id, 0), event.offset + 1)
    causal = fold.known_events(plane.records, ends, plane.pins.wire(), plane.content, 300 * SECOND)
    later = plane.known(plane.log.ends())

    def holds(identity: tuple[str, str, bytes]) -> bool:
        if identity in then.events or identity in then.amendments:
            return True
        if identity in causal.events or identity in causal.amendments:
            return Cause.CAUSAL_READ in changed
        return (Cause.DATA_AMENDMENT if identity in later.amendments else Cause.DATA_LATE_EVENT) in changed

    return fold.part_of(later, holds)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    worlds(max_events=30, partitions=("0000", "0001")),
    st.lists(st.integers(1, 12), min_size=1, max_size=4),
    st.integers(5, 33),
    st.data(),
)
def test_every_set_of_changes_gives_the_oracles_vector(
    pool: Pool, world: Any, sizes: list[int], second: int, draw: st.DataObject
) -> None:
    plane = SmallPlane(pool, next(STREAMS))
    plane.load(world.records)
    as_of = START + second * SECOND
    projector, batches = plane.projector(), itertools.cycle(sizes)
    decisions = []
    while True:
        with suppress(ContractError):
            answer = plane.reader.answer(plane.request(KEYS, GROUPS, as_of, CONTEXT))
            record = decision_of(answer, plane, f"d-{len(decisions)}")
            if plane.records:
                at = draw.draw(st.sampled_from(plane.records))
                place = Position(stream_name=plane.log.stream_name, partition_id=at.partition_id, offset=at.offset)
                record = record.model_copy(update={"event_position": place})
            decisions.append(record)
        if projector.apply_available(max_records=next(batches)) is None:
            break
    with tempfile.TemporaryDirectory() as folder:
        variants = VectorVariants(runs_of(plane, replayed(plane, Path(folder) / "fold")), Otherwise(plane.log.ends()))
        vectors = variants.rebuild([canonical_bytes(record.wire()).decode() for record in decisions])
        assert len(vectors) == len(decisions)
        for record, vector in zip(decisions, vectors, strict=True):
            assert not isinstance(vector, NotRebuilt)
            expected = {}
            for changed in (frozenset(one) for size in range(4) for one in itertools.combinations(KINDS, size)):
                assert record.input_basis is not None
                known = part_known(plane, record.input_basis, record.event_position, changed)
                expected[changed] = fold.snapshot(
                    known, plane.content, KEYS, GROUPS, as_of, allowed_lateness=0, request_context=CONTEXT, forensic=True
                ).by_key
            if expected[frozenset(KINDS)] == expected[frozenset()]:
                assert vector.changes == frozenset()
                expected = {frozenset(): expected[frozenset()]}
            else:
                assert vector.changes == {*KINDS, Cause.DATA_LINK}
                expected[vector.changes] = expected[frozenset(KINDS)]
            for changed, values in expected.items():
                assert vector.values(changed) == values


ENTITIES = ("a-1", "a-2", "a-3", "a-4")
LINKS = st.builds(
    lambda ids, second, is_link: graph.SaidLink("account", *ids, START + second * SECOND, b"", is_link),
    st.lists(st.sampled_from(ENTITIES), min_size=2, max_size=2, unique=True),
    st.integers(0, 10),
    st.sampled_from((True, True, False)),
)


def linked(member: str, canonical: str) -> graph.SaidLink:
    return graph.SaidLink("account", member, canonical, START, b"", True)


PAYMENTS = st.lists(st.tuples(st.sampled_from(ENTITIES), st.integers(4, 9), st.integers(0, 9)), max_size=8)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(LINKS, max_size=4), st.lists(LINKS, max_size=4), PAYMENTS, PAYMENTS)
@example([], [linked("a-1", "a-2"), linked("a-3", "a-1"), replace(linked("a-3", "a-1"), is_link=False)], [], [("a-3", 4, 0)])
def test_links_and_late_events_each_alone_give_the_oracles_vector(
    dsn: str, early_links: Any, late_links: Any, early: Any, late: Any
) -> None:
    def said(links: Any, first: int) -> list[graph.SaidLink]:
        # no two of one effective time: the digests of the events, which would order them, are not the oracle's
        return [replace(link, effective=link.effective + number) for number, link in enumerate(links, first)]

    with open_pool(dsn) as opened, tempfile.TemporaryDirectory() as folder:
        run = PlantedRun(ResolvedPlane(opened), ready_bundle(resolving_registry(), RULES))
        plane, as_of = run.site.plane, START + AT * SECOND
        run.site.link(said(early_links, 0))
        [position, *_] = run.append(run.pay("a-1", AT), *(run.pay(account, second, amount) for account, second, amount in early))
        answer = run.ask("a-1")
        known_links = list(run.site.links)
        recorded = plane.known(plane.log.ends())
        run.late(*(run.pay(account, second, amount) for account, second, amount in late))
        run.site.link(said(late_links, len(early_links)))
        record = decision_of(answer, plane).model_copy(update={"event_position": position})
        [vector] = run.variants(Path(folder)).rebuild([canonical_bytes(record.wire()).decode()])
        assert not isinstance(vector, NotRebuilt)
        expected = {}
        for events, links in itertools.product((False, True), repeat=2):
            _, members, conflicts = graph.entity(run.site.links if links else known_links, "account", "a-1", as_of)
            told = [{"kind": kind, "key_ids": list(ids)} for kind, ids in sorted(conflicts)]
            known = plane.known(plane.log.ends()) if events else recorded
            groups = [(group.group_name, group.group_version) for group in run.ready.bundle.groups]
            entities = {("account", "a-1"): (members, told)}
            changed = {Cause.DATA_LATE_EVENT: events, Cause.DATA_LINK: links}
            expected[frozenset(cause for cause, there in changed.items() if there)] = fold.snapshot(
                known, plane.content, [("account", "a-1")], groups, as_of, allowed_lateness=0, forensic=True, entities=entities
            ).by_key
        if expected[frozenset(changed)] == expected[frozenset()]:
            assert vector.changes == frozenset()
        else:
            assert vector.values(vector.changes) == expected[frozenset(changed)]
            assert all(vector.values(changes) == values for changes, values in expected.items())


def flips_of(tally: WhatIfTally, run: PlantedRun) -> dict[str, tuple[Any, ...]]:
    """By account: the new outcome, and the causes."""
    accounts = {past.decision_id: account for account, past in run.decisions.items()}
    assert tally.looked_at == len(run.decisions)

    def told(flip: Flip) -> tuple[Any, ...]:
        return flip.after, *flip.causes

    return {accounts[flip.decision_id]: told(flip) for flip in tally.flips}


def tried(run: PlantedRun, alternative: Alternative) -> WhatIfTally:
    trial = WhatIf(alternative, run.load)
    trial.look_at(list(run.decisions.values()))
    return trial.tally


def plant_data(run: PlantedRun) -> dict[str, tuple[Any, ...]]:
    """Decide, and then let things become known; what flips, and why."""
    run.link("a-0", "a-00")  # so that there is a version of the graph
    amended = {name: run.pay(name, 7, 150) for name in ("amended", "unamended")}
    run.append(*amended.values())
    run.append(*(run.pay(name, 7) for name in ("late", "either", "outside", "quiet", "both")))
    run.append(*(run.pay("other", second) for second in (7, 8)), run.pay("both-2", 8), run.pay("either-2", 8))
    run.append(*(run.pay("raced", second) for second in (7, 8)))
    for name in ("amended", "unamended", "late", "either", "outside", "quiet", "linked"):
        run.decide(name)
    run.decisions["both"] = run.decide("both-1")
    del run.decisions["both-1"]
    run.decide("raced", causal=False)
    run.late(
        run.pay("late", 8),
        amendment("m-1", amended["amended"], 8, amount=7),
        amendment("m-2", amended["unamended"], 10, amount=7),  # counts behind the decision only
        run.pay("either", 8),
        run.pay("outside", 2),
        run.pay("both-1", 8),
    )
    for member, canonical in (("other", "linked"), ("both-2", "both-1"), ("either-2", "either")):
        run.link(member, canonical)
    return {
        "late": (Outcome.REVIEW, Cause.DATA_LATE_EVENT),
        "amended": (Outcome.APPROVE, Cause.DATA_AMENDMENT),
        "linked": (Outcome.REVIEW, Cause.DATA_LINK),
        "raced": (Outcome.REVIEW, Cause.CAUSAL_READ),
        "both": (Outcome.REVIEW, Cause.DATA_LATE_EVENT, Cause.DATA_LINK),  # neither does it alone
        "either": (Outcome.REVIEW, Cause.DATA_LATE_EVENT, Cause.DATA_LINK),  # each does it alone
    }


def test_planted_data_is_the_cause_of_its_flip(run: PlantedRun, tmp_path: Path) -> None:
    planted = plant_data(run)
    tally = tried(run, Alternative(vectors=run.variants(tmp_path)))
    assert flips_of(tally, run) == planted
    assert (tally.same, tally.untold_decisions) == (len(run.decisions) - len(planted), [])


AMOUNT = Guardrail(
    reason_code="AMOUNT", outcome=Outcome.DECLINE, all_of=(Comparison(field="amount", operator="at_least", value=50),)
)
MODEL = ExactModel(
    model_name="unread",
    inputs=(PayloadInput(field="unread", scale=0, absent=0),),
    score_scale=0,
    score_kind="log_odds",
    form=LinearForm(base=0, weights=(1,), references=(0,), least=(0,), greatest=(100,)),
)
OTHER_PACK = (
    resolving()
    .replace("revision: 1", "revision: 2")
    .replace("  - name: lists\n    version: v1", "  - name: lists\n    version: v2")
    .replace("{name: payments, aggregation: count, events: [payment], window: 3s}",
             "{name: payments, aggregation: count, events: [payment], window: 10s}")
)  # fmt: skip


def other_registry(text: str = OTHER_PACK) -> CompiledRegistry:
    return compile_pack(load_pack(text))


def plant_deciding(run: PlantedRun) -> dict[str, tuple[Any, ...]]:
    """Decide on what another pack, rule or model decides otherwise."""
    run.append(*(run.pay("defined", second) for second in (1, 8)))
    run.decide("defined")
    run.decide("ruled", amount=55)
    run.decide("scored", unread=1)
    return {
        "defined": (Outcome.REVIEW, Cause.FEATURE),
        "ruled": (Outcome.DECLINE, Cause.RULE),
        "scored": (Outcome.REVIEW, Cause.MODEL),
    }


def test_a_late_event_that_was_voided_since_is_no_cause_of_what_a_rule_does(run: PlantedRun, tmp_path: Path) -> None:
    run.link("a-0", "a-00")
    run.append(run.pay("a-1", 7))
    run.decide("a-1", amount=55)
    late = run.pay("a-1", 8)
    assert late["payload"]["status"] == "ok"
    run.late(late, amendment("m-1", late, 9, kind="void"))
    tally = tried(run, Alternative(ready_bundle(resolving_registry(), (*RULES, AMOUNT)), None, run.variants(tmp_path)))
    assert flips_of(tally, run) == {"a-1": (Outcome.DECLINE, Cause.RULE)}


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_planted_changes_of_all_kinds_are_told_apart_at_once(run: PlantedRun, tmp_path: Path, version: str) -> None:
    planted = plant_data(run) | plant_deciding(run)
    # v2: the bundle was made for the other pack, whose group stands for the one that was served
    lists = FeatureGroupRef(group_name="lists", group_version=version)
    rules = (rule(lists, "payments", 3), RULES[1], AMOUNT)
    other = ready_bundle(resolving_registry(), rules, (lists, WHOLE), MODEL)
    variants = run.variants(tmp_path, pack=other_registry())
    tally = tried(run, Alternative(other, None, variants))
    # its event at second 2 is in the longer window: only where both are otherwise
    planted["outside"] = (Outcome.REVIEW, Cause.DATA_LATE_EVENT, Cause.FEATURE)
    assert flips_of(tally, run) == planted
    assert tally.untold_decisions == []


def test_another_pack_alone_changes_what_its_definitions_change(run: PlantedRun, tmp_path: Path) -> None:
    plant_data(run)
    plant_deciding(run)
    tally = tried(run, Alternative(vectors=run.variants(tmp_path, as_known_now=False, pack=other_registry())))
    assert flips_of(tally, run) == {"defined": (Outcome.REVIEW, Cause.FEATURE)}
    assert tally.untold_decisions == []


def test_another_mode_on_other_vectors_is_told_apart(run: PlantedRun, tmp_path: Path) -> None:
    plant_data(run)
    tally = tried(run, Alternative(None, Mode.HOLD, run.variants(tmp_path)))
    by_mode = (Cause.POSTURE,)
    assert flips_of(tally, run) == {
        "late": (Outcome.REVIEW, Cause.DATA_LATE_EVENT, *by_mode),
        "amended": (Outcome.REVIEW, Cause.DATA_AMENDMENT, *by_mode),  # alone to another outcome yet
        "linked": (Outcome.REVIEW, Cause.DATA_LINK, *by_mode),
        "raced": (Outcome.REVIEW, Cause.CAUSAL_READ, *by_mode),
        "either": (Outcome.REVIEW, Cause.DATA_LATE_EVENT, Cause.DATA_LINK, *by_mode),
        **dict.fromkeys(("both", "unamended", "outside", "quiet"), (Outcome.REVIEW, *by_mode)),
    }


def untold(run: PlantedRun, variants: VectorVariants) -> tuple[set[str], set[str]]:
    """The reasons, and the words, where nothing can be told."""
    tally = tried(run, Alternative(vectors=variants))
    assert (tally.same, tally.flips) == (0, [])
    assert len(tally.untold_decisions) == len(run.decisions)
    return set(tally.untold), {one.detail for one in tally.untold_decisions}


def test_what_cannot_be_rebuilt_is_told_and_never_counted_as_equal(run: PlantedRun, tmp_path: Path) -> None:
    first = run.pay("a-1", 8)
    run.link("a-0", "a-00")
    run.append(first)
    run.decide("a-1")
    plane = run.site.plane

    def of_replay(run_key: tuple[str, str] = (plane.registry.digest, RUN_CONFIG), **changes: Any) -> tuple[set[str], set[str]]:
        folder = Path(tempfile.mkdtemp(dir=tmp_path)) / "fold"
        runs = {run_key: replayed(plane, folder, registry=plane.registry, **changes)}
        parity = ParityRuns(plane.log.stream_name, plane.pins, runs, run.site.context())
        return untold(run, VectorVariants(parity, Otherwise(plane.log.ends())))

    lost = {"the log does not give the recorded hash: `ofp parity run`"}
    assert of_replay(change=without(first["event_id"])) == ({"REBUILD_DIFFERS"}, lost)
    assert of_replay(("0" * 64, RUN_CONFIG))[0] == {"REGISTRY_MISSING"}
    assert of_replay((plane.registry.digest, "0" * 64))[0] == {"RUN_CONFIG_UNKNOWN"}
    start = make_basis(plane.log.stream_name, {part.partition_id: part.start() for part in plane.log.ends().partitions})
    assert of_replay(basis=start)[0] == {"BASIS_BEYOND_REPLAY"}


def test_another_pack_that_does_not_fit_is_told(run: PlantedRun, tmp_path: Path) -> None:
    run.link("a-0", "a-00")
    run.append(run.pay("a-1", 8))
    run.decide("a-1")

    def under(text: str) -> tuple[set[str], set[str]]:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        return untold(run, run.variants(folder, as_known_now=False, pack=other_registry(text)))

    reasons, words = under(OTHER_PACK.replace("  - name: lists\n", "  - name: listed\n"))
    assert (reasons, words) == (
        {"GROUP_VERSION_MISSING"},
        {"pack resolving revision 2 has nothing for lists v1: it has no group lists"},
    )
    begin = OTHER_PACK.index("  - name: lists")
    lists = OTHER_PACK[begin : OTHER_PACK.index("  - name: texts")]
    several = OTHER_PACK[:begin] + lists.replace("version: v2", "version: v3") + OTHER_PACK[begin:]
    assert "which one is meant?" in " ".join(under(several)[1])
    needing = OTHER_PACK.replace(lists, lists + NEEDING)
    assert under(needing)[0] == {"PROVENANCE_INCOMPLETE"}
    without_feature = OTHER_PACK.replace("{name: payments, ", "{name: paid, ")
    assert under(without_feature)[0] == {"OTHER_FEATURES"}
    assert OtherPack(other_registry(without_feature)).faults({("lists", "v1", "payments"), ("gone", "v1", "x")}) == [
        "pack resolving revision 2 has nothing for gone v1: it has no group gone",
        "its group lists v2 has no feature payments",
    ]
    assert OtherPack(other_registry()).faults({("lists", "v1", "payments"), ("whole", "v1", "a_top")}) == []


NEEDING = """    request: {limit: integer}
    on_demand:
      - {name: over_limit, expression: payments / request.limit}
"""


def test_a_record_that_does_not_come_of_what_it_names_is_no_flip(run: PlantedRun, tmp_path: Path) -> None:
    run.link("a-0", "a-00")
    run.append(run.pay("a-1", 8))
    past = run.decide("a-1")
    text = past.stored_text.replace('"outcome":"approve"', '"outcome":"decline"')
    run.decisions["a-1"] = replace(past, stored_text=text, content=orjson.loads(text))
    assert untold(run, run.variants(tmp_path))[0] == {"NOT_AS_RECORDED"}


def test_a_decision_without_a_vector_stays_as_it_is_and_has_none_in_another_mode(run: PlantedRun, tmp_path: Path) -> None:
    run.link("a-0", "a-00")
    [position] = run.append(run.pay("a-1", 8))
    event = ReadEvent(position, "p-1", START + 8 * SECOND, {"account_id": "a-1"})
    run.decisions["a-1"] = past_decision(run.ready, event, None, Mode.HOLD)
    variants = run.variants(tmp_path)
    tally = tried(run, Alternative(vectors=variants))
    assert (tally.same, tally.looked_at) == (1, 1)
    assert tried(run, Alternative(None, Mode.NORMAL, variants)).untold == {"OTHER_GROUPS": 1}
