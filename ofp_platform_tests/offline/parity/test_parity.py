"""Parity of what a small plane served: MATCH at every basis, and named evidence for every planted damage."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ofp_platform.kernel.snapshot import Answer
from ofp_platform.log.port import RecordBatch
from ofp_platform.offline.parity import rebuilding
from ofp_platform.offline.parity.parity import ParityRuns
from ofp_platform.offline.parity.parity_anchor import ParityAnchor
from ofp_platform.offline.replay.event_index import EventIndex, KeyEvents
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.storage.snapshot_records import record_bytes
from ofp_platform.vocabulary.canonical import canonical_bytes, digest_of
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.offline.parity_record import FeatureDifference, ParityOutcome, ParityResult, UncheckableReason
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform_tests.oracle.rebuilt import (
    decision_anchor,
    decision_of,
    parity,
    replayed,
    runs_of,
    snapshot_anchor,
    without,
)
from ofp_platform_tests.oracle.small_plane import SmallPlane, payment
from ofp_platform_tests.oracle.strategies import ACCOUNTS, LATENESS, MERCHANTS, SECOND, START, worlds

STREAMS = (f"parity-{number}" for number in itertools.count())
KEYS = [*(("account", one) for one in (*ACCOUNTS, "a-never")), *(("merchant", one) for one in MERCHANTS)]
GROUPS = [
    ("every", "v1"),
    ("lists", "v1"),
    ("ratios", "v2"),
    ("switches", "v1"),
    ("texts", "v1"),
    ("whole", "v1"),
    ("shop", "v1"),
]
MATCH, MISMATCH, UNCHECKABLE = ParityOutcome


@pytest.fixture(scope="module")
def pool(module_dsn: str) -> Iterator[Pool]:
    with open_pool(module_dsn) as opened:
        yield opened


def ask(
    plane: SmallPlane, as_of: int, keys: list[tuple[str, str]] = KEYS, groups: list[tuple[str, str]] = GROUPS
) -> Answer | None:
    try:
        return plane.reader.answer(plane.request(keys, groups, as_of, {"amount": 5}))
    except ContractError:
        return None


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    worlds(max_events=30, partitions=("0000", "0001")),
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 35), st.sampled_from((-1, 0, 1))), min_size=1, max_size=4),
    st.sampled_from((0, LATENESS)),
    st.sampled_from((1, 3, 256)),
)
def test_everything_that_was_served_at_any_basis_is_rebuilt(
    pool: Pool, world: Any, sizes: list[int], moments: list[tuple[int, int]], lateness: int, chunk_events: int
) -> None:
    plane = SmallPlane(pool, next(STREAMS), allowed_lateness=lateness, chunk_events=chunk_events)
    plane.load(world.records)
    projector, batches = plane.projector(), itertools.cycle(sizes)
    answers: list[Answer] = []
    while True:
        for second, side in moments:
            answers += [answer for answer in [ask(plane, START + second * SECOND + side)] if answer is not None]
        if projector.apply_available(max_records=next(batches)) is None:
            break
    with tempfile.TemporaryDirectory() as folder:
        runs = runs_of(plane, replayed(plane, Path(folder) / "fold"))
        anchors = [snapshot_anchor(answer) for answer in answers]
        anchors += [decision_anchor(decision_of(answer, plane)) for answer in answers]
        for record in parity(anchors, runs):
            assert record.outcome is MATCH, record


# ---- planted damage ---------------------------------------------------------------------------------------------------

AS_OF = START + 9 * SECOND
ACCOUNT, EVERY = [("account", "a-1")], [("every", "v1")]


class Told:
    """A plane that served one question at two bases: before and after its last payment, which is older than the as-of."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.folder = folder
        self.plane = SmallPlane(pool, next(STREAMS))
        self.plane.append([payment(f"e-{n}", n * SECOND, amount=10 + n) for n in range(4)])
        self.plane.drain()
        self.first = self.ask()
        self.plane.append([payment("e-0", 0, amount=10), payment("e-late", 5 * SECOND, amount=99)])
        self.plane.drain()
        self.last = self.ask()

    def ask(self) -> Answer:
        answer = ask(self.plane, AS_OF, ACCOUNT, EVERY)
        assert answer is not None
        return answer

    def one(self, anchor: ParityAnchor, runs: ParityRuns | None = None, **change: Any) -> ParityResult:
        used = runs or runs_of(self.plane, replayed(self.plane, self.folder / "fold", **change))
        (record,) = parity([anchor], used, (self.first, self.last))
        return record

    def altered(self, answer: Answer, change: Callable[[dict[str, Any]], None], *, rename: bool = True) -> ParityAnchor:
        hashed = orjson.loads(answer.hashed)
        change(hashed)
        name = digest_of(hashed) if rename else answer.hash
        return ParityAnchor(name, record_bytes(name, canonical_bytes(hashed)))


@pytest.fixture
def told(pool: Pool, tmp_path: Path) -> Told:
    return Told(pool, tmp_path)


def difference(record: ParityResult) -> FeatureDifference:
    assert record.outcome is MISMATCH
    assert record.offline_snapshot_ref not in (None, record.online_snapshot_ref)
    assert record.first_difference is not None
    return record.first_difference


def names(record: ParityResult) -> list[str]:
    return [event.event_id for event in difference(record).events]


def feature_of(hashed: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = hashed["values"][0]["by_group"][0]["features"]
    return found


def test_an_altered_snapshot_record_is_damaged(told: Told) -> None:
    def change(hashed: dict[str, Any]) -> None:
        feature_of(hashed)["a_sum"] = 12345

    record = told.one(told.altered(told.last, change, rename=False))
    assert (record.outcome, record.reason) == (UNCHECKABLE, UncheckableReason.SNAPSHOT_DAMAGED)


def test_a_forged_snapshot_record_shows_its_first_difference(told: Told) -> None:
    def change(hashed: dict[str, Any]) -> None:
        feature_of(hashed)["a_shops"] = 12345
        feature_of(hashed)["a_stddev"] = "0.000000"

    anchor = told.altered(told.last, change)
    record = parity_of_forged(told, anchor)
    found = difference(record)
    assert (found.where, found.key_id, found.group_name, found.feature) == ("values", "a-1", "every", "a_shops")
    assert (found.served, found.rebuilt) == (12345, 1)
    assert [(one.where, one.feature) for one in record.differences] == [("values", "a_shops"), ("values", "a_stddev")]
    assert (record.differences[1].served, record.differences[1].events) == ("0.000000", ())
    assert names(record) == ["e-0", "e-1", "e-2", "e-3", "e-late"]


@pytest.mark.parametrize(
    ("group", "feature", "forged"),
    [("switches", "any_online", 1), ("switches", "any_online", "true"), ("texts", "last_shops", "X")],
)
def test_one_is_not_true_and_a_text_is_that_text(told: Told, group: str, feature: str, forged: int | str) -> None:
    answer = ask(told.plane, AS_OF, ACCOUNT, [(group, "v1")])
    assert answer is not None
    true_value = feature_of(orjson.loads(answer.hashed))[feature]
    told.last = answer
    record = parity_of_forged(told, told.altered(answer, lambda hashed: feature_of(hashed).update({feature: forged})))
    found = difference(record)
    assert (found.where, found.group_name, found.feature) == ("values", group, feature)
    assert (type(found.served), found.served, found.rebuilt) == (type(forged), forged, true_value)
    assert [(one.where, one.feature) for one in record.differences] == [("values", feature)]


def parity_of_forged(told: Told, anchor: ParityAnchor) -> ParityResult:
    """The forged record is in the store, too."""
    assert anchor.content is not None
    forged = replace(told.last, hash=anchor.snapshot_hash, hashed=canonical_bytes(orjson.loads(anchor.content)["hashed"]))
    (record,) = parity([anchor], runs_of(told.plane, replayed(told.plane, told.folder / "fold")), (forged,))
    return record


def test_a_value_served_without_an_event_that_its_basis_holds_names_the_event(told: Told) -> None:
    late_basis = orjson.loads(told.last.hashed)["input_basis"]
    record = parity_of_forged(told, told.altered(told.first, lambda hashed: hashed.update(input_basis=late_basis)))
    assert difference(record).feature == "a_amounts"
    assert names(record) == ["e-late"]
    assert "which the basis holds, were not known" in (record.detail or "")


def test_a_value_served_with_an_event_that_its_basis_does_not_hold_names_the_event(told: Told) -> None:
    early_basis = orjson.loads(told.first.hashed)["input_basis"]
    record = parity_of_forged(told, told.altered(told.last, lambda hashed: hashed.update(input_basis=early_basis)))
    assert names(record) == ["e-late"]
    assert difference(record).events[0].offset == 5
    assert "which the basis does not hold, were known" in (record.detail or "")


def test_a_freshness_that_differs_names_the_newest_events(told: Told) -> None:
    def change(hashed: dict[str, Any]) -> None:
        hashed["freshness"][0]["last_update_event_time"] = orjson.loads(told.first.hashed)["freshness"][0][
            "last_update_event_time"
        ]

    record = parity_of_forged(told, told.altered(told.last, change))
    assert difference(record).where == "freshness"
    assert names(record) == ["e-3", "e-late"]


def test_another_question_under_the_hash_is_named(told: Told) -> None:
    decision = decision_of(told.last, told.plane).model_copy(update={"as_of_time_utc": "2023-11-14T22:13:28Z"})
    record = told.one(decision_anchor(decision))
    assert (difference(record).where, difference(record).feature) == ("other", "as_of_time_utc")


def test_a_snapshot_that_is_not_stored_is_still_a_mismatch(told: Told) -> None:
    decision = decision_of(told.last, told.plane).model_copy(update={"feature_snapshot_hash": "5" * 64})
    record = told.one(decision_anchor(decision))
    assert (record.outcome, record.first_difference) == (MISMATCH, None)
    assert record.detail is not None


def test_an_altered_event_in_the_log_is_found(told: Told) -> None:
    def change(batch: RecordBatch) -> RecordBatch:
        payloads = [body.replace(b'"amount":12', b'"amount":13') for body in batch.payloads]
        return replace(batch, payloads=payloads)

    record = told.one(decision_anchor(decision_of(told.last, told.plane)), change=change)
    found = difference(record)
    assert (found.feature, found.served, found.rebuilt) == ("a_amounts", 5, 4)
    assert "e-2" in names(record)


def test_a_result_says_what_was_served_and_which_decision_it_was(told: Told) -> None:
    decision = decision_of(told.last, told.plane).model_copy(update={"request_id": "asked-1"})
    record = told.one(decision_anchor(decision))
    assert record.outcome is ParityOutcome.MATCH
    assert (record.decision_id, record.request_id) == (decision.decision_id, "asked-1")
    for name in ("context_pins", "feature_keys", "feature_groups", "input_basis", "run_config_digest"):
        assert getattr(record, name) == getattr(decision, name)
    assert record.registry_digest == decision.feature_definition_set.digest
    assert record.as_of is not None
    assert (record.as_of.as_of_time_utc, record.as_of.as_of_basis) == (decision.as_of_time_utc, "decision")
    assert record.online_snapshot_ref == record.offline_snapshot_ref == told.last.hash


def test_a_missing_event_is_found(told: Told) -> None:
    record = told.one(snapshot_anchor(told.last), change=without("e-2"))
    found = difference(record)
    assert (found.feature, found.served, found.rebuilt) == ("a_amounts", 5, 4)
    assert names(record) == ["e-0", "e-1", "e-3", "e-late"]


def test_a_broken_fold_is_a_mismatch(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative controls: a copy counted twice, a basis that is not looked at, a skew that is not the run's."""

    def copies_apart(batch: RecordBatch) -> RecordBatch:
        hashes = [bytes([place]) * 32 for place in range(len(batch))]
        return replace(batch, payload_hashes=hashes)

    anchors = [snapshot_anchor(told.first), snapshot_anchor(told.last)]
    served = (told.first, told.last)
    runs = runs_of(told.plane, replayed(told.plane, told.folder / "copies", change=copies_apart))
    assert [record.outcome for record in parity(anchors, runs, served)] == [MATCH, MISMATCH]
    runs = runs_of(told.plane, replayed(told.plane, told.folder / "skew", skew=-10_000 * SECOND))
    assert [record.outcome for record in parity(anchors, runs, served)] == [MISMATCH, MISMATCH]
    runs = runs_of(told.plane, replayed(told.plane, told.folder / "right"))
    assert [record.outcome for record in parity(anchors, runs, served)] == [MATCH, MATCH]
    monkeypatch.setattr(rebuilding, "known_from", lambda chain, events, copies: np.zeros(events, np.int64))
    assert [record.outcome for record in parity(anchors, runs, served)] == [MISMATCH, MATCH]


def test_many_processes_tell_the_same(told: Told) -> None:
    anchors = [snapshot_anchor(told.first), decision_anchor(decision_of(told.last, told.plane)), ParityAnchor("4" * 64, None)]
    runs = runs_of(told.plane, replayed(told.plane, told.folder / "fold"))
    one = parity(anchors, runs, (told.first, told.last))
    assert [record.outcome for record in one] == [MATCH, MATCH, UNCHECKABLE]
    assert parity(anchors, runs, (told.first, told.last), workers=2) == one


# ---- what cannot be compared ------------------------------------------------------------------------------------------


def content_without(anchor: ParityAnchor, name: str) -> ParityAnchor:
    assert anchor.content is not None
    content = orjson.loads(anchor.content)
    del content[name]
    return replace(anchor, content=canonical_bytes(content))


@pytest.mark.parametrize(
    "name",
    ["context_pins", "feature_keys", "feature_groups", "as_of_time_utc", "input_basis", "run_config_digest", "request_context",
     "feature_definition_set", "feature_snapshot_hash"],
)  # fmt: skip
def test_half_a_provenance_is_told(told: Told, name: str) -> None:
    record = told.one(content_without(decision_anchor(decision_of(told.last, told.plane)), name))
    assert (record.outcome, record.reason) == (UNCHECKABLE, UncheckableReason.PROVENANCE_INCOMPLETE)
    assert record.detail


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"context_pins":1}'])
def test_bytes_that_are_no_record_are_told(told: Told, content: bytes) -> None:
    anchor = decision_anchor(decision_of(told.last, told.plane))
    assert told.one(replace(anchor, content=content)).reason is UncheckableReason.PROVENANCE_INCOMPLETE
    assert told.one(ParityAnchor(told.last.hash, content), runs_again(told)).reason is UncheckableReason.SNAPSHOT_DAMAGED


def runs_again(told: Told) -> ParityRuns:
    return runs_of(told.plane, replayed(told.plane, told.folder / "again"))


def test_what_another_registry_run_config_stream_or_run_served_is_told(told: Told) -> None:
    runs = runs_again(told)
    ((key, run),) = runs.runs.items()
    anchor = snapshot_anchor(told.last)
    cases = [
        (replace(runs, runs={}), anchor, UncheckableReason.REGISTRY_MISSING),
        (replace(runs, runs={(key[0], "9" * 64): run}), anchor, UncheckableReason.RUN_CONFIG_UNKNOWN),
        (replace(runs, stream_name="elsewhere"), anchor, UncheckableReason.ANOTHER_STREAM),
        (
            replace(runs, pins=told.plane.pins.model_copy(update={"run_id": "run-9"})),
            anchor,
            UncheckableReason.ANOTHER_RUN,
        ),
        (
            runs,
            told.altered(
                told.last, lambda hashed: hashed.update(graph_version={"graph_version": "g-1", "stream_name": "s", "basis": []})
            ),
            UncheckableReason.GRAPH_VERSION_UNKNOWN,
        ),
        (
            runs,
            told.altered(told.last, lambda hashed: hashed.update(graph_version="g-1")),
            UncheckableReason.PROVENANCE_INCOMPLETE,
        ),
        (
            runs,
            told.altered(told.last, lambda hashed: hashed["feature_groups"][0].update(group_version="v9")),
            UncheckableReason.GROUP_VERSION_MISSING,
        ),
        (runs, ParityAnchor(told.last.hash, None), UncheckableReason.SNAPSHOT_MISSING),
    ]
    for used, one, reason in cases:
        record = told.one(one, used)
        assert (record.outcome, record.reason) == (UNCHECKABLE, reason)


def test_a_basis_beyond_the_replay_is_told(told: Told) -> None:
    short = ReplayBasis.up_to(told.plane.log.ends()).end.model_validate(orjson.loads(told.first.hashed)["input_basis"])
    runs = runs_of(told.plane, replayed(told.plane, told.folder / "short", basis=short))
    assert told.one(snapshot_anchor(told.last), runs).reason is UncheckableReason.BASIS_BEYOND_REPLAY
    assert told.one(snapshot_anchor(told.first), runs).outcome is MATCH


def test_a_replay_that_does_not_begin_at_the_beginning_can_prove_nothing(told: Told) -> None:
    runs = runs_again(told)
    ((key, run),) = runs.runs.items()
    spans = tuple(span.model_copy(update={"start": min(1, int(span.next))}) for span in run.knowledge.replay_basis.partitions)
    cut = replace(run.knowledge, replay_basis=run.knowledge.replay_basis.model_copy(update={"partitions": spans}))
    partial = replace(runs, runs={key: replace(run, knowledge=cut)})
    assert told.one(snapshot_anchor(told.last), partial).reason is UncheckableReason.BASIS_BEYOND_REPLAY


def test_a_rebuild_reads_no_further_back_than_its_answer_looks(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = SmallPlane(pool, next(STREAMS))
    plane.append([payment(f"e-{number}", number * SECOND) for number in range(60)])
    plane.drain()
    answer = ask(plane, START + 59 * SECOND)
    assert answer is not None
    starts: list[int] = []
    read = EventIndex.events

    def spied(index: EventIndex, key_type: str, key_ids: Any, after: Any, until: Any) -> KeyEvents:
        starts.extend(after.tolist())
        return read(index, key_type, key_ids, after, until)

    monkeypatch.setattr(EventIndex, "events", spied)
    (record,) = parity([snapshot_anchor(answer)], runs_of(plane, replayed(plane, tmp_path / "fold")))
    assert record.outcome is MATCH
    retained = plane.registry.reach + plane.allowed_lateness
    assert set(starts) == {START + 59 * SECOND - retained}  # the horizon, which lies behind every window
