"""Lists of what is kept: by pages, of one run alone, and what is absent or damaged is said to be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from ofp_platform.api.examples import decision_example
from ofp_platform.api.overviews import Overviews
from ofp_platform.log.governance_log import append_facts
from ofp_platform.offline.parity.correction_store import store_corrections
from ofp_platform.offline.parity.parity_store import store_records
from ofp_platform.offline.runs.run_ledger import RunLedger
from ofp_platform.storage.bundle_events import append_bundle_event
from ofp_platform.storage.decision_records import append_decisions
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.bundle import BundleEvent, BundleRef, BundleScope, BundleStep, Slot
from ofp_platform.vocabulary.loop.bundle_views import BundleHistory, BundlesInForce
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord, decision_id
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, Refusal
from ofp_platform.vocabulary.offline.build_run import RunState
from ofp_platform.vocabulary.offline.dataset_manifest import manifest_path
from ofp_platform.vocabulary.offline.governance_fact import PackOperation
from ofp_platform.vocabulary.offline.overviews import (
    BuildList,
    BuildProgress,
    DatasetList,
    ParityList,
    ParityReport,
    PublishedDataset,
)
from ofp_platform.vocabulary.offline.parity_record import (
    ParityOutcome,
    ParityResult,
)
from ofp_platform.vocabulary.offline.run_facts import TrafficMode
from ofp_platform.vocabulary.pack_operations import PackOperations
from ofp_platform.vocabulary.position import Position
from ofp_platform.vocabulary.profile import Profile, load_profile
from ofp_platform.vocabulary.times import parse_time
from ofp_platform_tests.oracle.kept import (
    MATCH,
    MISMATCH,
    UNCHECKABLE,
    correction,
    intent_of,
    pack_step,
    parity_result,
    publish,
)
from ofp_platform_tests.oracle.simulated_log import PINS, write_profile

COMPARISON, OTHERS_COMPARISON = "a" * 64, "b" * 64


def every_run(_pins: ContextPins) -> bool:
    return True


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    (tmp_path / "objects").mkdir()
    return load_profile(write_profile(tmp_path, object_store_url=f"file://{tmp_path}/objects"))


@pytest.fixture
async def views(profile: Profile, dsn: str) -> AsyncIterator[Overviews]:
    overviews = Overviews(profile, dsn)
    yield overviews
    await overviews.close()


@pytest.fixture
def pool(dsn: str) -> Any:
    with open_pool(dsn, max_size=2) as opened:
        yield opened


def pins_of(profile: Profile, *, other: bool = False) -> ContextPins:
    return ContextPins.model_validate({**PINS, "run_id": "another-run"}) if other else profile.context_pins


async def pages(ask: Callable[[str | None], Any], entries: Callable[[Any], Any]) -> list[Any]:
    """All entries, page by page."""
    cursor, collected = None, []
    while True:
        page = await ask(cursor)
        collected += entries(page)
        cursor = page.next_cursor
        if cursor is None:
            return collected


async def test_an_empty_plane_has_empty_lists(views: Overviews) -> None:
    assert BuildList.model_validate_json(await views.builds(20, None, None)).builds == ()
    assert ParityList.model_validate_json(await views.comparisons(20, None)).comparisons == ()
    assert DatasetList.model_validate_json(await views.datasets(20, None)).datasets == ()
    assert PackOperations.model_validate_json(await views.pack_operations(20, None)).steps == ()
    assert BundleHistory.model_validate_json(await views.bundles(20, None)).steps == ()
    assert BundlesInForce.model_validate_json(await views.bundles_in_force(None, None)).scopes == ()


async def test_builds_by_pages_with_state_reason_progress_and_size(views: Overviews, profile: Profile, pool: Pool) -> None:
    ledger = RunLedger(pool)
    pins = pins_of(profile)
    keys = [ledger.submit(intent_of(pins, f"set_{number}")).run_key for number in range(5)]
    ledger.submit(intent_of(pins_of(profile, other=True), "of_another_run"))
    with ledger.claim(keys[1]) as lease:
        assert lease is not None
        lease.record_receipt("size", {"records": 7, "rows": 5, "bytes": 900})
        lease.fail(Refusal(reason=BuildReason.LABEL_COVERAGE_BELOW_POLICY, field="label", message="too few"))
    with ledger.claim(keys[2]) as lease:
        assert lease is not None
        lease.record_receipt("size", {"records": 9, "rows": 6, "bytes": 1_000})
    builds = await pages(
        lambda cursor: _parsed(BuildList, views.builds(2, None, cursor)),
        lambda page: page.builds,
    )
    assert [build.run_key for build in builds] == keys[::-1]
    failed, running = builds[3], builds[2]
    assert (failed.state, failed.refusal.reason, failed.refusal.field) == (
        RunState.FAILED,
        "LABEL_COVERAGE_BELOW_POLICY",
        "label",
    )
    assert (failed.size.rows, failed.size.bytes, failed.attempts) == (5, 900, 1)
    assert failed.newest_stage.stage == "refusal"
    assert (running.state, running.newest_stage.stage, running.submitted_by) == (RunState.RUNNING, "size", "ada")
    assert (builds[0].size, builds[0].newest_stage, builds[0].dataset_name) == (None, None, "set_4")
    only = BuildList.model_validate_json(await views.builds(20, RunState.FAILED, None))
    assert [build.run_key for build in only.builds] == [keys[1]]
    progress = BuildProgress.model_validate_json(await views.build_stages(keys[1], every_run))
    assert [stage.stage for stage in progress.stages] == ["size", "refusal"]


async def test_a_build_of_an_older_form_is_in_the_list(views: Overviews, profile: Profile, pool: Pool) -> None:
    key = "e" * 64
    intent = {"intent": "dataset_build", "context_pins": pins_of(profile).wire(), "dataset_name": "old", "form": "older"}
    with pool.connection() as connection:
        connection.execute(
            "INSERT INTO ofp.build_run (run_key, intent_kind, intent, attempt_limit, publish_attempt_limit)"
            " VALUES (%s, 'dataset_build', %s, 1, 1)",
            (key, canonical_bytes(intent).decode()),
        )
    (build,) = BuildList.model_validate_json(await views.builds(20, None, None)).builds
    assert (build.run_key, build.dataset_name) == (key, "old")


def decide(pool: Pool, pins: ContextPins, event_id: str) -> str:
    record = DecisionRecord.model_validate_json(canonical_bytes(decision_example()))
    name = decision_id(pins, record.event_type, event_id)
    with pool.connection() as connection:
        changes = {"context_pins": pins, "event_id": event_id, "decision_id": name}
        append_decisions(connection, [record.model_copy(update=changes)])
    return name


def result(comparison: str, decision: str, digit: str, outcome: ParityOutcome, day: str | None) -> ParityResult:
    return parity_result(comparison, decision, digit * 64, outcome, day)


async def test_parity_by_day_and_group_of_one_run_alone(views: Overviews, profile: Profile, pool: Pool) -> None:
    own = [decide(pool, pins_of(profile), f"event-{number}") for number in range(4)]
    foreign = decide(pool, pins_of(profile, other=True), "event-of-another")
    store_records(
        pool,
        [
            result(COMPARISON, own[0], "1", MATCH, "2026-02-01"),
            result(COMPARISON, own[1], "2", MISMATCH, "2026-02-03"),
            result(COMPARISON, own[2], "3", MATCH, "2026-02-03"),
            result(COMPARISON, own[3], "4", UNCHECKABLE, None),
            result(OTHERS_COMPARISON, foreign, "5", MATCH, "2026-02-09"),
        ],
    )
    store_corrections(pool, [correction(COMPARISON, own[1], "2" * 64, "2026-02-03")])
    page = ParityList.model_validate_json(await views.comparisons(20, None))
    (comparison,) = page.comparisons
    assert (comparison.match, comparison.mismatch, comparison.uncheckable) == (2, 1, 1)
    assert (comparison.requested_by, comparison.last_as_of_utc) == ("run", "2026-02-03T10:00:00Z")
    report = ParityReport.model_validate_json(await views.parity_report(COMPARISON, None, every_run))
    assert [(day.day, day.match, day.mismatch, day.uncheckable) for day in report.days] == [
        ("2026-02-03", 1, 1, 0),
        ("2026-02-01", 1, 0, 0),
    ]
    assert (report.undated, report.next_before) == (1, None)
    assert [(one.reason, one.count) for one in report.uncheckable] == [("PROVENANCE_INCOMPLETE", 1)]
    (mismatch,) = report.mismatches
    assert (mismatch.feature, mismatch.served, mismatch.rebuilt, mismatch.decision_id) == ("count_24h", 3, 2, own[1])
    assert [(one.day, one.decisions, one.values) for one in report.corrected] == [("2026-02-03", 1, 1)]
    earlier = ParityReport.model_validate_json(await views.parity_report(COMPARISON, "2026-02-03", every_run))
    assert [day.day for day in earlier.days] == ["2026-02-01"]
    assert earlier.corrected == ()
    await refused(views.parity_report(OTHERS_COMPARISON, None, every_run), Reason.UNKNOWN_COMPARISON)
    await refused(views.parity_report(COMPARISON, "yesterday", every_run), Reason.INVALID_FIELD)


async def test_more_days_than_a_page_and_more_comparisons(views: Overviews, profile: Profile, pool: Pool) -> None:
    days = [f"2026-0{month}-{day:02d}" for month in (1, 3) for day in range(1, 21)]
    decisions = [decide(pool, pins_of(profile), f"event-{number}") for number in range(len(days))]
    store_records(
        pool,
        [result(COMPARISON, name, f"{i % 10}", MATCH, day) for i, (name, day) in enumerate(zip(decisions, days, strict=True))],
    )
    store_records(pool, [result(f"{number:x}" * 64, decisions[0], "1", UNCHECKABLE, None) for number in (1, 2, 3)])
    report = ParityReport.model_validate_json(await views.parity_report(COMPARISON, None, every_run))
    behind = ParityReport.model_validate_json(await views.parity_report(COMPARISON, report.next_before, every_run))
    assert [day.day for day in (*report.days, *behind.days)] == days[::-1]
    assert behind.next_before is None
    listed = await pages(lambda cursor: _parsed(ParityList, views.comparisons(1, cursor)), lambda page: page.comparisons)
    assert [one.comparison_id[0] for one in listed] == ["a", "3", "2", "1"]
    assert listed[1].last_as_of_utc is None


async def test_datasets_are_held_against_what_was_recorded(views: Overviews, profile: Profile, pool: Pool) -> None:
    objects = ObjectStore(profile.object_store_url)
    whole_manifest = publish(pool, objects, pins_of(profile), "a_whole")
    damaged = publish(pool, objects, pins_of(profile), "b_damaged")
    foreign = publish(pool, objects, pins_of(profile, other=True), "c_foreign").dataset_identity
    publish(pool, objects, pins_of(profile), "d_unbuilt", recorded=False)
    folder = objects.folder
    assert folder is not None
    (folder / manifest_path("b_damaged", damaged.dataset_identity)).write_bytes(b"{}")
    listed = await pages(lambda cursor: _parsed(DatasetList, views.datasets(1, cursor)), lambda page: page.datasets)
    assert [(one.dataset_name, one.manifest.state) for one in listed] == [
        ("a_whole", "AS_RECORDED"),
        ("b_damaged", "UNREADABLE"),
        ("d_unbuilt", "DIFFERS"),
    ]
    whole, broken, unbuilt = listed
    assert (whole.rows, whole.skew.differing_features, whole.manifest.problems) == (151_200, 1, ())
    assert whole.published_at_utc is not None
    assert (broken.rows, len(broken.manifest.problems)) == (None, 1)
    assert (unbuilt.published_at_utc, "no build of this ledger" in unbuilt.manifest.problems[0]) == (None, True)
    dataset = PublishedDataset.model_validate_json(await views.dataset("a_whole", whole.dataset_identity, every_run))
    assert dataset.manifest == whole_manifest
    assert (
        PublishedDataset.model_validate_json(await views.dataset("b_damaged", damaged.dataset_identity, every_run)).manifest
        is None
    )
    await refused(views.dataset("c_foreign", foreign, every_run), Reason.UNKNOWN_DATASET)
    await refused(views.dataset("nothing", foreign, every_run), Reason.UNKNOWN_DATASET)
    await refused(views.dataset("a_whole", whole.dataset_identity, lambda _pins: False), Reason.UNKNOWN_DATASET)


async def test_pack_operations_of_one_run_the_newest_first(views: Overviews, profile: Profile, pool: Pool) -> None:
    def step(number: int, pins: ContextPins | None = None, stream_name: str = profile.stream_name) -> PackOperation:
        return pack_step(pins or pins_of(profile), stream_name, records=number)

    append_facts(pool, [step(number) for number in range(3)])
    append_facts(pool, [step(9, pins_of(profile, other=True)), step(8, stream_name="elsewhere")])
    steps = await pages(lambda cursor: _parsed(PackOperations, views.pack_operations(1, cursor)), lambda page: page.steps)
    assert [one.records for one in steps] == [2, 1, 0]


async def test_steps_of_bundles_and_what_is_in_force(views: Overviews, profile: Profile, pool: Pool) -> None:
    ref = BundleRef(bundle_name="rules", digest="1" * 64)
    scope = BundleScope(environment="env", mode=TrafficMode.FRAUD, slot=Slot.ACTIVE)
    steps = [(BundleStep.PUBLISHED, None), (BundleStep.APPROVED, None), (BundleStep.ACTIVATED, scope)]
    with pool.connection() as connection:
        for pins in (pins_of(profile), pins_of(profile, other=True)):
            for number, (step, of_scope) in enumerate(steps):
                event = BundleEvent(
                    context_pins=pins,
                    sequence=number,
                    step=step,
                    bundle=ref,
                    scope=of_scope,
                    actor="who",
                    reason="why",
                    at_utc=f"2026-01-0{number + 1}T00:00:00Z",
                )
                position = Position(stream_name="control", partition_id="0000", offset=number)
                append_bundle_event(connection, event, position)
    told = await pages(lambda cursor: _parsed(BundleHistory, views.bundles(1, cursor)), lambda page: page.steps)
    assert [(one.event.sequence, one.event.context_pins) for one in told] == [(n, pins_of(profile)) for n in (2, 1, 0)]
    now = BundlesInForce.model_validate_json(await views.bundles_in_force(None, None))
    assert [(one.scope, one.in_force.bundle, one.in_force.sequence) for one in now.scopes] == [(scope, ref, 2)]
    day_two = parse_time("2026-01-02T00:00:00Z")
    for before in (views.bundles_in_force(1, None), views.bundles_in_force(None, day_two), views.bundles_in_force(2, day_two)):
        assert (await _parsed(BundlesInForce, before)).scopes == ()
    await refused(views.bundles_in_force(3, None), Reason.INVALID_FIELD)


@pytest.mark.parametrize("cursor", ["", "-1", "x", "1" * 19, "²", f"1{'a' * 64}", f"x~{'a' * 64}", "name~short", "~"])
async def test_a_cursor_of_another_form_is_refused(views: Overviews, cursor: str) -> None:
    await refused(views.builds(1, None, cursor), Reason.INVALID_FIELD)
    await refused(views.pack_operations(1, cursor), Reason.INVALID_FIELD)
    await refused(views.bundles(1, cursor), Reason.INVALID_FIELD)
    await refused(views.comparisons(1, cursor), Reason.INVALID_FIELD)
    if not cursor.endswith("a"):
        await refused(views.datasets(1, cursor), Reason.INVALID_FIELD)


async def test_nothing_is_written_and_an_outage_is_said(views: Overviews, profile: Profile) -> None:
    with views._snapshot() as connection, pytest.raises(Exception, match="read-only transaction"):
        connection.execute("INSERT INTO ofp.build_receipt (run_key) VALUES ('x')")
    down = Overviews(profile, "postgresql://nobody@127.0.0.1:1/none")
    await refused(down.builds(1, None, None), Reason.STORE_DOWN)
    await down.close()


async def _parsed(model: Any, answer: Any) -> Any:
    return model.model_validate_json(await answer)


async def refused(answer: Any, reason: Reason) -> None:
    with pytest.raises(ContractError) as caught:
        await asyncio.ensure_future(answer)
    assert caught.value.reason is reason
