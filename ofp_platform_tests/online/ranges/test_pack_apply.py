"""A planned pack goes live as one recorded operation, while readers read; one call goes back."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ofp_platform.kernel.snapshot import Answer
from ofp_platform.offline.parity.projection_fold import ProjectionFold
from ofp_platform.online.plane import Plane, profile_pack
from ofp_platform.online.projecting.apply_until import apply_until
from ofp_platform.online.ranges.comparison import keys_by_digest
from ofp_platform.online.ranges.pack_apply import Order, apply_plan, roll_back
from ofp_platform.online.ranges.pack_plan import PlanRefused, plan_pack
from ofp_platform.online.ranges.rebuild import RebuildRefused
from ofp_platform.online.ranges.retired_state import remove_retired
from ofp_platform.online.state.key_shards import reshard_in_time
from ofp_platform.online.state.projection import ProjectionConflict, ProjectionRow
from ofp_platform.storage.embedded import as_role
from ofp_platform.storage.pack_operations import last_build_rate, read_operations
from ofp_platform.storage.roles import Job, default_role
from ofp_platform.vocabulary.pack_plan import GroupChange, PackPlan
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.serving import GetFeaturesRequest
from ofp_platform.vocabulary.times import format_time
from ofp_platform_tests.oracle.simulated_log import WITH_ANOTHER_GROUP, append, pack_with, profile
from ofp_platform_tests.oracle.stored_state import STATE_TABLES, first_key

NOW = 1_900_000_000_000_000
ORDER = Order(actor="mia", reason="a longer window", at=NOW, share=1.0)
BACK = Order(actor="mia", reason="it was a mistake", at=NOW + 1, share=1.0)


@pytest.fixture
def plane(dsn: str, tmp_path: Path) -> Iterator[Plane]:
    """A live projection at the head of its log, and a profile that names a pack with one group more."""
    with Plane.open(profile(tmp_path), dsn) as opened:
        append(opened.log)
        catch_up(opened, opened.ensure_live())
        opened.profile = opened.profile.model_copy(update={"pack": str(pack_with(tmp_path, [WITH_ANOTHER_GROUP]))})
        yield opened


def catch_up(plane: Plane, row: ProjectionRow) -> None:
    apply_until(plane.projector(row), None, 500)


def fold(plane: Plane) -> ProjectionFold:
    return ProjectionFold(plane.log, plane.archive, plane.profile)


def plan(plane: Plane) -> PackPlan:
    return plan_pack(plane, profile_pack(plane.profile), fold(plane), planned_at=NOW)


def live_id(plane: Plane) -> int:
    row = plane.live()
    assert row is not None
    return row.projection_id


def test_a_plan_says_what_comes_and_what_it_costs_and_writes_nothing(plane: Plane) -> None:
    first = plan(plane)
    assert [(group.group_name, group.group_version) for group in first.groups if group.change is GroupChange.ADDED] == [
        ("account_activity", "v2")
    ]
    added = next(group for group in first.groups if group.change is GroupChange.ADDED)
    live = plane.ensure_live()
    assert live.watermark is not None
    assert added.reach_us == 60 * 86_400_000_000
    assert added.folded_from_utc == format_time(live.watermark - added.reach_us)
    assert first.readers_known
    assert added.read_by == ()
    assert added.replaces == ()  # v1 stays
    assert not any(group.change is GroupChange.REMOVED for group in first.groups)
    assert first.estimate.records == sum(int(part.offset) for part in live.basis.partitions) > 400
    assert first.estimate.state_bytes > 10_000
    assert first.estimate.records_per_second is not None
    assert "a fold of the first" in first.estimate.measured
    with plane.pool.connection() as connection:
        assert connection.execute("SELECT count(*) FROM ofp.projection").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM ofp.governance_fact").fetchone() == (0,)
    assert plan(plane).digest() == first.digest()  # whatever it may cost


def test_a_group_that_another_version_replaces_is_removed(plane: Plane, tmp_path: Path) -> None:
    renamed = pack_with(
        tmp_path, [("name: account_activity\n    version: v1", "name: account_activity\n    version: v9")], revision=3
    )
    plane.profile = plane.profile.model_copy(update={"pack": str(renamed)})
    changes = {(group.group_name, group.group_version): group for group in plan(plane).groups}
    assert changes["account_activity", "v1"].change is GroupChange.REMOVED
    assert changes["account_activity", "v9"].change is GroupChange.ADDED
    assert changes["account_activity", "v9"].replaces == ("v1",)
    assert changes["card_activity", "v1"].change is GroupChange.KEPT


def test_a_run_without_a_projection_has_nothing_to_plan_against(dsn: str, tmp_path: Path) -> None:
    with (
        Plane.open(profile(tmp_path), dsn) as empty,
        pytest.raises(PlanRefused, match="has no live projection to hold a pack against"),
    ):
        plan(empty)


def test_applied_recorded_and_gone_back_on(plane: Plane) -> None:
    before = live_id(plane)
    planned = plan(plane)
    receipt = apply_plan(plane, planned, fold(plane), ORDER)
    after = live_id(plane)
    assert after == receipt.beside.projection_id != before
    steps = read_operations(plane.pool, "card-payments", plane.profile.context_pins)
    assert [step.step for step in steps] == ["begun", "switched"]
    assert {step.operation_id for step in steps} == {steps[0].operation_id}
    switched = steps[1]
    assert (switched.from_projection, switched.to_projection) == (before, after)
    assert switched.plan_digest == planned.digest()
    assert switched.records == planned.estimate.records
    assert switched.basis == receipt.beside.basis == plane.row(after).basis
    assert receipt.comparison is not None
    assert switched.served_hash == receipt.comparison.live_hash
    assert switched.compared_keys > 30
    assert switched.kept_until_utc == format_time(NOW + 30 * 86_400_000_000)

    append(plane.log)  # copies: the former one stands behind now
    catch_up(plane, plane.row(after))
    back = roll_back(plane, fold(plane), BACK)
    assert live_id(plane) == before == back.beside.projection_id
    assert plane.row(before).basis == plane.row(after).basis
    steps = read_operations(plane.pool, "card-payments", plane.profile.context_pins)
    assert [step.step for step in steps] == ["begun", "switched", "begun", "rolled_back"]
    with pytest.raises(PlanRefused, match="was made live by no operation that can be gone back on"):
        roll_back(plane, fold(plane), BACK)

    again = apply_plan(plane, plan(plane), fold(plane), Order(actor="mia", reason="after all", at=NOW + 2, share=1.0))
    assert live_id(plane) == after == again.beside.projection_id


def test_a_plan_of_a_pack_that_changed_since(plane: Plane, tmp_path: Path) -> None:
    planned = plan(plane)
    other = pack_with(tmp_path, [WITH_ANOTHER_GROUP], revision=7)
    plane.profile = plane.profile.model_copy(update={"pack": str(other)})
    with pytest.raises(PlanRefused, match="the pack changed since it was planned"):
        apply_plan(plane, planned, fold(plane), ORDER)
    applied = apply_plan(plane, plan(plane), fold(plane), ORDER)
    assert not applied.unchanged
    with pytest.raises(PlanRefused, match="the registry that is live changed since it was planned"):
        apply_plan(plane, planned, fold(plane), ORDER)
    assert apply_plan(plane, plan(plane), fold(plane), ORDER).unchanged


def test_what_differs_stays_beside_and_the_refusal_is_recorded(plane: Plane) -> None:
    before, planned = live_id(plane), plan(plane)
    beside = plane.open_beside()
    catch_up(plane, beside)
    with plane.pool.connection() as connection:
        key_id = first_key(connection)
        for table in STATE_TABLES:
            connection.execute(
                f"DELETE FROM ofp.{table} WHERE (projection_id, key_id) = (%s, %s)", (beside.projection_id, key_id)
            )
    with pytest.raises(RebuildRefused, match="differs from the live one"):
        apply_plan(plane, planned, fold(plane), ORDER)
    assert live_id(plane) == before
    steps = read_operations(plane.pool, "card-payments", plane.profile.context_pins)
    assert [step.step for step in steps] == ["begun", "refused"]
    assert steps[1].refusal is not None
    assert "differs from the live one" in steps[1].refusal


def test_going_back_when_the_former_one_is_gone(plane: Plane) -> None:
    before = live_id(plane)
    apply_plan(plane, plan(plane), fold(plane), ORDER)
    assert remove_retired(plane.pool, before)
    with pytest.raises(PlanRefused, match=f"projection {before} was kept until .* and is gone"):
        roll_back(plane, fold(plane), BACK)


def test_another_runs_operations_are_not_ours(plane: Plane) -> None:
    apply_plan(plane, plan(plane), fold(plane), ORDER)
    other = plane.profile.context_pins.model_copy(update={"run_id": "run-2"})
    assert read_operations(plane.pool, "card-payments", other) == []
    assert last_build_rate(plane.pool, "card-payments", other) is None


def test_readers_during_an_operation_see_whole_values_only(dsn: str, tmp_path: Path) -> None:
    """Serving and projecting go on; each answer is what a fold of the records says at the basis that it names."""
    with Plane.open(profile(tmp_path), dsn) as plane:
        append(plane.log)
        plane.projector(plane.ensure_live()).apply_available(max_records=150)
        plane.profile = plane.profile.model_copy(update={"pack": str(pack_with(tmp_path, [WITH_ANOTHER_GROUP]))})
        with plane.pool.connection() as connection:
            accounts = keys_by_digest(connection, plane.known_live().projection_id, "account", 20)
        answers: list[tuple[ProjectionRow, GetFeaturesRequest, Answer]] = []
        done, trouble = threading.Event(), []

        def go_on() -> None:
            try:
                for number in itertools.count():
                    if done.is_set() and number > 30:
                        return
                    row = plane.known_live()
                    request = question(row, accounts[number % len(accounts)])
                    answers.append((row, request, plane.reader(row).answer(request)))
                    if number % 5 == 0:
                        with contextlib.suppress(ProjectionConflict):
                            plane.projector(row).apply_available(max_records=10)
            except Exception as error:
                trouble.append(error)

        other = threading.Thread(target=go_on)
        other.start()
        try:
            receipt = apply_plan(plane, plan(plane), fold(plane), ORDER)
        finally:
            done.set()
            other.join()
        assert not trouble, trouble
        assert {row.projection_id for row, _, _ in answers} <= {receipt.live.projection_id, receipt.beside.projection_id}
        assert len({answer.basis for _, _, answer in answers}) > 3
        assert any(not answer.missing for _, _, answer in answers)
        by_basis: dict[tuple[str, str], list[tuple[ProjectionRow, GetFeaturesRequest, Answer]]] = {}
        for served in answers:
            by_basis.setdefault((served[0].registry_digest, served[2].basis), []).append(served)
        for (_, basis), group in by_basis.items():
            row = group[0][0]
            requests = [request for _, request, _ in group]
            hashes = fold(plane)(plane.registry_of(row), row.pins, Basis.model_validate_json(basis), requests)
            assert hashes == [answer.hash for _, _, answer in group]


def question(row: ProjectionRow, account: str) -> GetFeaturesRequest:
    return GetFeaturesRequest.model_validate(
        {
            "context_pins": row.pins.wire(),
            "feature_keys": [{"key_type": "account", "key_id": account}],
            "feature_groups": [{"group_name": "account_activity", "group_version": "v1"}],
            "as_of_time_utc": "2026-01-02T12:00:00Z",
        }
    )


def test_the_roles_of_these_jobs_may_plan_apply_and_go_back(plane: Plane) -> None:
    def opened_as(job: Job) -> Plane:
        return Plane.open(plane.profile, as_role(plane.dsn, default_role(job)), create_stream=False)

    with opened_as(Job.OFFLINE) as offline:
        pack_plan = plan(offline)
    with opened_as(Job.PROJECTOR) as projector:
        receipt = apply_plan(projector, pack_plan, fold(projector), ORDER)
        assert live_id(plane) == receipt.beside.projection_id
        roll_back(projector, fold(projector), BACK)
    assert live_id(plane) == receipt.live.projection_id


def test_a_pack_goes_live_with_the_key_shards_of_the_live_one(plane: Plane) -> None:
    reshard_in_time(plane.pool, live_id(plane), 2)
    receipt = apply_plan(plane, plan(plane), fold(plane), ORDER)
    assert receipt.beside.shards == 2
    assert receipt.comparison is not None
    assert receipt.comparison.keys > 30
