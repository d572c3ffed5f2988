"""A log that lost its tail: every door tells, nothing is answered about what is not there, and the archive puts it back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ofp_platform.decisions.event_reader import EventReader
from ofp_platform.kernel.snapshot import Answer
from ofp_platform.log.archive import ArchiveConflict, archive_up_to
from ofp_platform.log.archive_restore import plan_restore, restore
from ofp_platform.log.archived_tail import lost_tails
from ofp_platform.log.port import LogTailLost, LogUnavailable, PositionUnknown
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.offline.sources.stream_records import StreamRecords
from ofp_platform.online.plane import Plane
from ofp_platform.online.projecting.continuous import run_continuous
from ofp_platform.online.service.online_service import OnlineService
from ofp_platform.storage.schema import migrate
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform.vocabulary.identity import ContextPins, FeatureKey, KeyType
from ofp_platform.vocabulary.position import Position, basis_text
from ofp_platform.vocabulary.serving import FeatureGroupRef, GetFeaturesRequest, PostureState
from ofp_platform.vocabulary.times import format_time
from ofp_platform_tests.cli.program import Outcome, call
from ofp_platform_tests.online.answered import answered
from ofp_platform_tests.oracle.list_log import rows_of
from ofp_platform_tests.oracle.simulated_log import PINS, deliveries, heads, profile
from ofp_platform_tests.oracle.streaming_replica import ReplicatedServer, replicated_server

HALF = 200


@pytest.fixture
def servers() -> Iterator[ReplicatedServer]:
    with replicated_server() as servers:
        yield servers


def append(plane: Plane, first: int, following: int) -> list[Position]:
    """Append simulated records; where the last ones stand."""
    part = deliveries().part(first, following)
    receipt = plane.log.append(list(part.records()), part.clock())
    return [outcome for outcome in receipt.outcomes if isinstance(outcome, Position)]


def project(plane: Plane) -> None:
    projector = plane.projector(plane.ensure_live())
    while projector.apply_available(max_records=100) is not None:
        pass


def archive(plane: Plane) -> None:
    archive_up_to(plane.ranges, plane.archive, plane.log.ends())


def records(plane: Plane) -> list[Any]:
    """Everything that the log says of all its records."""
    log, batches = plane.log, []
    for end in log.ends().partitions:
        batch = log.read(end.partition_id, None, 10_000)
        while len(batch):
            batches.append(batch)
            batch = log.read(end.partition_id, batch.next, 10_000)
    return rows_of(batches)


def request(*positions: Position) -> GetFeaturesRequest:
    account = next(record["payload"]["account_id"] for record in deliveries().records())
    return GetFeaturesRequest(
        context_pins=ContextPins.model_validate(PINS),
        feature_keys=(FeatureKey(key_type=KeyType.ACCOUNT, key_id=account),),
        feature_groups=(FeatureGroupRef(group_name="account_activity", group_version="v1"),),
        as_of_time_utc=format_time(int(max(deliveries().ts))),
        at_least_basis=positions or None,
    )


def answer(plane: Plane, *positions: Position) -> Answer:
    return plane.reader(plane.known_live()).answer(request(*positions))


def refusal(answering: Callable[[], object]) -> Reason:
    with pytest.raises(ContractError) as caught:
        answering()
    return caught.value.reason


async def test_an_archived_tail_is_missed_at_every_door_and_put_back(servers: ReplicatedServer, tmp_path: Path) -> None:
    settings = profile(tmp_path)
    with Plane.open(settings, servers.primary.dsn) as plane:
        shared = append(plane, 0, HALF)[-1]
        project(plane)
        servers.cut_off()
        lost = append(plane, HALF, 2 * HALF)[-1]
        project(plane)
        archive(plane)
        before = (records(plane), plane.log.ends(), basis_text(plane.known_live().basis), answer(plane, shared, lost).body)
    servers.fail_over()

    variables = {
        "OFP_HOME": str(tmp_path / "home"),
        "OFP_DATABASE_URL": servers.replica.dsn,
        "OFP_PROFILE": str(tmp_path / "profile.yaml"),
    }

    def ofp(*arguments: str) -> Outcome:
        return call(*arguments, **variables)

    examined = ofp("doctor")
    assert examined.code == 1
    assert "a recovery lost records" in " ".join(examined.out.split())
    verified = ofp("archive", "verify")
    assert (verified.code, "the archive has it up to" in verified.err) == (1, True)
    assert "ofp archive restore" in ofp("projector", "run").refused()
    assert "ofp archive restore" in ofp("parity", "run").refused()
    with pytest.raises(LogTailLost):
        Plane.open(settings, servers.replica.dsn)
    with Plane.open(settings, servers.replica.dsn, create_stream=False) as plane:
        assert plane.known_live().basis.contains(shared)
        for open_projector in (plane.projector, lambda row: run_continuous_once(plane, row)):
            with pytest.raises(LogTailLost):
                open_projector(plane.known_live())
        with pytest.raises(LogTailLost, match="ends at"):
            StreamRecords(plane.log, plane.archive).ends  # noqa: B018
        with pytest.raises(LogUnavailable, match="restore"):
            append(plane, 0, 1)
        assert refusal(partial(answer, plane, lost)) is Reason.LOG_TAIL_LOST
        left = heads(plane)

    service = OnlineService(settings, servers.replica.dsn, connections=2)
    await service.open()
    try:
        health = await service.health()
        assert (health.state, "LOG_TAIL_LOST" in health.reasons) == (PostureState.RED, True)
        with pytest.raises(ContractError) as caught:
            await answered(service, request(shared).model_dump_json(exclude_none=True).encode())
        assert (caught.value.reason, caught.value.retryable) == (Reason.LOG_TAIL_LOST, True)
    finally:
        await service.close()

    planned = ofp("archive", "restore", "--dry-run")
    assert (planned.code, f"would be put back: {HALF} records" in planned.out) == (0, True), planned
    with Plane.open(settings, servers.replica.dsn, create_stream=False) as plane:
        assert heads(plane) == left
    done = ofp("archive", "restore")
    assert (done.code, f"put back: {HALF} records" in done.out) == (0, True), done
    assert "put back: 0 records" in ofp("archive", "restore").out
    assert ofp("archive", "verify").code == 0
    with Plane.open(settings, servers.replica.dsn) as plane:
        project(plane)
        after = (records(plane), plane.log.ends(), basis_text(plane.known_live().basis), answer(plane, shared, lost).body)
        assert after == before
        assert [part.incarnation for part in plane.log.ends().partitions] == [None, None]
        new = append(plane, 2 * HALF, 2 * HALF + 1)[-1]
        project(plane)
        assert new.incarnation is not None
        assert plane.known_live().basis.contains(new)
        assert b'"incarnation":"' in answer(plane, shared, lost, new).body
        archive(plane)
        assert not lost_tails(plane.log, plane.archive)


def run_continuous_once(plane: Plane, row: Any) -> None:
    run_continuous(
        partial(plane.projector, row), plane.log, plane.dsn, row.projection_id, batch_records=50, stop=threading.Event()
    )


async def test_what_was_lost_for_good_is_never_taken_for_what_stands_there_now(servers: ReplicatedServer, tmp_path: Path) -> None:
    settings = profile(tmp_path)
    with Plane.open(settings, servers.primary.dsn) as plane:
        shared = append(plane, 0, HALF)
        project(plane)
        archive(plane)
        servers.cut_off()
        lost = append(plane, HALF, HALF + 50)
        project(plane)
        old_basis, old_ends = plane.known_live().basis, plane.log.ends()
        old_log = PostgresLog.open(plane.pool, plane.log.stream_name)
    servers.fail_over()
    with Plane.open(settings, servers.replica.dsn, create_stream=False) as plane:
        with pytest.raises(LogUnavailable, match="was promoted or put back"):
            append(plane, HALF, HALF + 1)
        assert plane.reading_refusal(plane.known_live().basis) is not None
    with Plane.open(settings, servers.replica.dsn) as plane:  # nothing that is archived is missing: it settles the log
        assert plane.reading_refusal(plane.known_live().basis) is None
        assert refusal(partial(answer, plane, lost[-1])) is Reason.BASIS_LOST
        new = append(plane, HALF + 50, 2 * HALF)
        project(plane)
        taken = {(one.partition_id, one.offset) for one in lost} & {(one.partition_id, one.offset) for one in new}
        assert taken
        assert not {one.model_dump_json() for one in lost} & {one.model_dump_json() for one in new}
        basis = plane.known_live().basis
        assert all(basis.contains(one) for one in new)
        assert not any(basis.contains(one) for one in lost)
        for position in lost:
            assert refusal(partial(answer, plane, position)) is Reason.BASIS_LOST
        at_all = answer(plane, *shared, *new)
        assert at_all.body == answer(plane).body
        for part in old_ends.partitions:
            with pytest.raises(LogTailLost, match="the log has another"):
                plane.log.read(part.partition_id, part, 1)
        assert "the log has another" in (plane.reading_refusal(old_basis) or "")
        reader = EventReader(plane.log, settings.context_pins, "card_payment", settings.clock_skew_us)
        with pytest.raises(LogTailLost):
            list(reader.pages(old_ends, 10))
        archive(plane)
        assert PostgresLog.open(plane.pool, plane.log.stream_name).history == plane.log.history
        assert old_log.history != plane.log.history
        service = OnlineService(settings, servers.dsn, connections=2)
        await service.open()
        try:
            for positions, is_held in ((shared[:1], True), (new[-1:], True), (lost[:1], False), (lost[-1:], False)):
                body = request(*positions).model_dump_json(exclude_none=True).encode()
                if is_held:
                    assert (await answered(service, body)).hash == at_all.hash
                else:
                    with pytest.raises(ContractError) as caught:
                        await answered(service, body)
                    assert (caught.value.reason, caught.value.retryable) == (Reason.BASIS_LOST, False)
        finally:
            await service.close()


async def test_a_replica_is_read_and_one_that_lags_is_told(servers: ReplicatedServer, tmp_path: Path) -> None:
    settings, moment = profile(tmp_path), 0.0
    with Plane.open(settings, servers.primary.dsn) as plane:
        newest = append(plane, 0, HALF)[-1]
        project(plane)
        servers.catch_up()
        service = OnlineService(
            settings, servers.primary.dsn, read_dsn=servers.replica.dsn, connections=2, monotonic=lambda: moment
        )
        await service.open()
        try:
            assert service.monitor is not None
            body = request(newest).model_dump_json(exclude_none=True).encode()
            served = await answered(service, body)
            assert served.hash == answer(plane, newest).hash
            assert await service.snapshot(served.hash, lambda pins: True)
            assert (await service.health()).state is PostureState.GREEN
            servers.cut_off()
            append(plane, HALF, HALF + 10)
            project(plane)
            await service.monitor.observe()
            moment += 20
            await service.monitor.observe()
            assert service.monitor.posture["reasons"] == ["REPLICA_BEHIND_SECONDS>10"]
            moment += 100
            await service.monitor.observe()
            assert service.monitor.posture["state"] == "RED"
            assert (await answered(service, body)).hash == served.hash
        finally:
            await service.close()


@pytest.fixture
def shortened(dsn: str, tmp_path: Path) -> Iterator[Plane]:
    """A log that ends before its archive, on the same server: the files of an older moment were put back."""
    with Plane.open(profile(tmp_path), dsn) as plane:
        append(plane, 0, HALF)
        old_heads = heads(plane)
        append(plane, HALF, 2 * HALF)
        archive(plane)
        shorten(dsn, old_heads)
        yield plane


def shorten(dsn: str, to: dict[str, int]) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name, head in to.items():
            of_traffic = "partition_id = %s AND stream_name <> 'ofp.governance'"
            connection.execute(f"DELETE FROM ofp.log_block WHERE {of_traffic} AND first_offset >= %s", (name, head))
            connection.execute(f"UPDATE ofp.log_head SET next_offset = %s WHERE {of_traffic}", (head, name))


def test_a_running_process_sees_heads_go_back(dsn: str, tmp_path: Path) -> None:
    with Plane.open(profile(tmp_path), dsn) as plane:
        append(plane, 0, HALF)
        basis = plane.log.ends()
        assert plane.reading_refusal(basis) is None
        shorten(dsn, {name: head - 1 for name, head in heads(plane).items()})
        for seen in (basis, basis.model_copy(update={"partitions": ()})):
            assert "a recovery lost records" in (plane.reading_refusal(seen) or "")


def test_a_log_that_went_on_is_not_overwritten(shortened: Plane) -> None:
    left = records(shortened)
    append(shortened, 0, 40)
    gone_on = records(shortened)
    assert gone_on != left
    assert isinstance(shortened.log, PostgresLog)
    with pytest.raises(ArchiveConflict, match="another payload hash"):
        plan_restore(shortened.log, shortened.archive, shortened.pool)
    assert records(shortened) == gone_on
    with pytest.raises(LogTailLost):
        shortened.projector(shortened.ensure_live())


def test_what_is_appended_while_it_is_planned_refuses_it(shortened: Plane) -> None:
    assert isinstance(shortened.log, PostgresLog)
    tails = plan_restore(shortened.log, shortened.archive, shortened.pool)
    append(shortened, 0, 40)
    gone_on = records(shortened)
    with pytest.raises(PositionUnknown, match="not at"):
        restore(shortened.log, shortened.archive, tails)
    assert records(shortened) == gone_on


def test_a_log_made_anew_beside_its_archive_is_filled_from_it_first(dsn: str, empty_dsn: str, tmp_path: Path) -> None:
    with Plane.open(profile(tmp_path), dsn) as plane:
        append(plane, 0, HALF)
        archive(plane)
        before = records(plane)
    migrate(empty_dsn)
    with pytest.raises(LogTailLost, match="ends at 0"):
        Plane.open(profile(tmp_path), empty_dsn)
    with Plane.open(profile(tmp_path), empty_dsn, create_stream=False) as plane:
        assert isinstance(plane.log, PostgresLog)
        with pytest.raises(LogUnavailable):
            append(plane, 0, 1)
        restore(plane.log, plane.archive, plan_restore(plane.log, plane.archive, plane.pool))
        assert records(plane) == before
        append(plane, HALF, HALF + 1)
