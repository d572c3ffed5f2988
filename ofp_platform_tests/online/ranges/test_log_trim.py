"""Trimming the log: only what the archive has, verified, and every projection has applied; and nobody misses it afterwards."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import boto3
import pytest

from ofp_platform.cli.offline.label_commands import load_reports
from ofp_platform.log.archive import archive_closed_ranges, archive_up_to
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.kinesis import KinesisLog
from ofp_platform.log.port import PositionTrimmed, PositionUnknown
from ofp_platform.log.shard_evidence import StoredEvidence
from ofp_platform.offline.datasets.publication import load_manifest
from ofp_platform.offline.parity.projection_fold import ProjectionFold
from ofp_platform.offline.runs.builder import build
from ofp_platform.online.plane import Plane
from ofp_platform.online.ranges.log_progress import observe
from ofp_platform.online.ranges.log_trim import TrimRefused, plan_trim, trim
from ofp_platform.online.ranges.rebuild import rebuild, switch_live
from ofp_platform.online.serving.posture import judge
from ofp_platform.online.state.buckets import KEY_TYPE_CODES
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import open_pool
from ofp_platform.storage.schema import migrate
from ofp_platform.vocabulary.identity import FeatureKey, KeyType
from ofp_platform.vocabulary.offline.build_run import RunState
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest
from ofp_platform.vocabulary.position import Basis, basis_text, make_basis
from ofp_platform.vocabulary.serving import FeatureGroupRef, GetFeaturesRequest, PostureState
from ofp_platform.vocabulary.times import format_time
from ofp_platform_tests.log.conftest import FakeKinesis
from ofp_platform_tests.oracle.labelled_plane import LabelledPlane, payments
from ofp_platform_tests.oracle.simulated_log import RANGE_SIZE, WITH_ANOTHER_GROUP, append, deliveries, pack_with, profile
from ofp_platform_tests.oracle.stored_state import stored_events

HEAD = 10_000
STREAM = "card-payments"


@pytest.fixture
def plane(dsn: str, tmp_path: Path) -> Iterator[Plane]:
    """Everything appended and applied, nothing archived."""
    with Plane.open(profile(tmp_path), dsn) as opened:
        append(opened.log)
        opened.projector(opened.ensure_live()).apply_available(max_records=HEAD)
        yield opened


def archive_of(plane: Plane) -> Archive:
    return Archive(ObjectStore(plane.profile.object_store_url), plane.log.stream_name)


def floors(plane: Plane) -> dict[str, int]:
    return {part.partition_id: int(part.offset) for part in plane.log.retention_floor().partitions}


def whole_ranges(plane: Plane) -> dict[str, int]:
    return {part.partition_id: int(part.offset) // RANGE_SIZE * RANGE_SIZE for part in plane.log.ends().partitions}


def test_it_goes_as_far_as_whole_ranges_are_archived_and_applied(plane: Plane) -> None:
    archive = archive_of(plane)
    archive_up_to(plane.ranges, archive, plane.log.ends())
    trims = plan_trim(plane, archive)
    assert floors(plane) == {"0000": 0, "0001": 0}
    assert {one.partition_id: one.until for one in trims} == whole_ranges(plane)
    assert {one.kept for one in trims} == {"its offset range is still being filled"}
    before = plane.log.ends()
    trim(plane, trims)
    assert floors(plane) == whole_ranges(plane)
    assert plane.log.ends() == before
    with pytest.raises(PositionTrimmed):
        plane.log.read("0000", before.partitions[0].model_copy(update={"offset": RANGE_SIZE}), 1)
    assert [one.records for one in plan_trim(plane, archive)] == [0, 0]
    trim(plane, plan_trim(plane, archive))
    assert floors(plane) == whole_ranges(plane)


def test_what_is_not_archived_stays(plane: Plane) -> None:
    archive = archive_of(plane)
    trims = plan_trim(plane, archive)
    assert [(one.until, one.kept) for one in trims] == [(0, "it is archived up to 0 only (`ofp archive run`)")] * 2
    archive_up_to(plane.ranges, archive, Basis(stream_name=plane.log.stream_name, partitions=plane.log.ends().partitions[:1]))
    first, second = plan_trim(plane, archive)
    assert (first.until, second.until) == (whole_ranges(plane)["0000"], 0)
    trim(plane, [first, second])
    assert floors(plane) == {"0000": first.until, "0001": 0}


def test_what_a_projection_has_not_applied_stays(dsn: str, tmp_path: Path) -> None:
    with Plane.open(profile(tmp_path), dsn) as plane:
        append(plane.log)
        archive = archive_of(plane)
        archive_up_to(plane.ranges, archive, plane.log.ends())
        with pytest.raises(TrimRefused, match=r"no projection of log card-payments is live.*`ofp projector run`"):
            plan_trim(plane, archive)
        live = plane.ensure_live()
        assert {one.kept for one in plan_trim(plane, archive)} == {
            f"projection {live.projection_id} (live) has applied the log up to 0 only"
        }
        plane.projector(live).apply_available(max_records=3 * RANGE_SIZE)
        known = {part.partition_id: int(part.offset) for part in plane.row(live.projection_id).basis.partitions}
        trims = plan_trim(plane, archive)
        assert {one.partition_id: one.until for one in trims} == {
            name: known[name] // RANGE_SIZE * RANGE_SIZE for name in ("0000", "0001")
        }
        trim(plane, trims)
        # the live projection goes on from where it stands
        assert plane.projector(live).apply_available(max_records=HEAD) is not None
        assert plane.row(live.projection_id).basis == plane.log.ends()


def test_a_projection_that_is_being_built_counts_until_it_is_retired(plane: Plane) -> None:
    archive = archive_of(plane)
    archive_up_to(plane.ranges, archive, plane.log.ends())
    live = plane.ensure_live()
    trims = plan_trim(plane, archive)
    with plane.pool.connection() as connection:
        connection.execute(
            "INSERT INTO ofp.projection (stream_name, pins_digest, registry_digest, run_config_digest, pins, status, basis)"
            " SELECT stream_name, pins_digest, registry_digest, repeat('0', 64), pins, 'building', %s FROM ofp.projection"
            " WHERE projection_id = %s",
            ('{"partitions":[],"stream_name":"card-payments"}', live.projection_id),
        )
    assert {one.until for one in plan_trim(plane, archive)} == {0}
    assert all(" (building) has applied the log up to 0 only" in one.kept for one in plan_trim(plane, archive))
    with pytest.raises(TrimRefused, match=r"nothing is trimmed: projection \d+ \(building\) was opened meanwhile"):
        trim(plane, trims)
    assert floors(plane) == {"0000": 0, "0001": 0}
    with plane.pool.connection() as connection:
        connection.execute("UPDATE ofp.projection SET status = 'retired' WHERE status = 'building'")
    trim(plane, plan_trim(plane, archive))
    assert floors(plane) == whole_ranges(plane)


@pytest.mark.parametrize("name", ["segment", "receipt"])
def test_a_damaged_archive_refuses_all_of_it(plane: Plane, name: str) -> None:
    archive = archive_of(plane)
    archive_closed_ranges(plane.ranges, archive)
    folder = archive.store.folder
    assert folder is not None
    damaged = sorted((folder / "archive" / "card-payments" / "0001" / f"{name}s").iterdir())[1]
    content = damaged.read_bytes()
    damaged.chmod(0o644)
    damaged.write_bytes(content[:60] + bytes([content[60] ^ 1]) + content[61:])
    with pytest.raises(TrimRefused, match="nothing is trimmed: the log may be the only whole copy") as caught:
        plan_trim(plane, archive)
    assert damaged.name in str(caught.value)
    assert floors(plane) == {"0000": 0, "0001": 0}


def test_an_archive_of_other_records_refuses_all_of_it(plane: Plane, empty_dsn: str, tmp_path: Path) -> None:
    migrate(empty_dsn)
    with Plane.open(profile(tmp_path), empty_dsn) as other:
        append(other.log, payments())
        archive_closed_ranges(other.ranges, archive_of(other))
    with pytest.raises(TrimRefused, match=r"have another payload hash at \d+ positions(.|\n)*nothing is trimmed"):
        plan_trim(plane, archive_of(plane))
    assert floors(plane) == {"0000": 0, "0001": 0}


def test_a_failure_leaves_nothing_half_trimmed(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = archive_of(plane)
    archive_closed_ranges(plane.ranges, archive)
    trims = plan_trim(plane, archive)
    ahead = [trims[0], replace(trims[1], until=HEAD)]
    heads = tuple(part.model_copy(update={"offset": HEAD}) for part in plane.log.ends().partitions)
    with plane.pool.connection() as connection:
        connection.execute("UPDATE ofp.projection SET basis = %s", (basis_text(Basis(stream_name=STREAM, partitions=heads)),))
    with pytest.raises(PositionUnknown, match="does not reach offset"):
        trim(plane, ahead)
    assert floors(plane) == {"0000": 0, "0001": 0}
    first = plane.log.read("0000", None, 1)
    assert first.offsets == [0]


def test_a_log_that_is_not_in_postgresql(plane: Plane, moto_server: str) -> None:
    with closing(boto3.client("kinesis", endpoint_url=moto_server)) as client:
        archive = archive_of(plane)
        plane.opened_log = KinesisLog.create(client, "trimmed", 1, "payload.account_id", sleep=lambda seconds: None)
        with pytest.raises(TrimRefused, match="is not in PostgreSQL: how long records are kept is a setting of the stream"):
            plan_trim(plane, archive)


def manifest(world: LabelledPlane, name: str) -> DatasetManifest:
    run = build(world.build_context, world.build_context.ledger.submit(world.intent(dataset_name=name)).run_key)
    assert run.state is RunState.DONE, run.refusal
    assert run.outcome is not None
    return load_manifest(world.objects, name, run.outcome["dataset_identity"])


def test_replay_labels_and_builds_read_the_archive_afterwards(dsn: str, tmp_path: Path) -> None:
    world = LabelledPlane.prepare(dsn, tmp_path)
    with world.plane as plane:
        plane.projector(plane.ensure_live()).apply_available(max_records=HEAD)
        before = manifest(world, "before")
        queued = world.build_context.ledger.submit(world.intent(dataset_name="after"))
        trim(plane, plan_trim(plane, world.build_context.archive))
        assert floors(plane) == whole_ranges(plane)
        assert all(floors(plane).values())
        run = build(world.build_context, queued.run_key)
        assert run.outcome is not None, run.refusal
        after = load_manifest(world.objects, "after", run.outcome["dataset_identity"])
        assert after.content_digest == before.content_digest
        assert [file.sha256 for file in after.files] == [file.sha256 for file in before.files]
        assert after.replay_basis == before.replay_basis
        assert after.gates.completeness == before.gates.completeness
        assert after.gates.parity == before.gates.parity
        assert after.gates.parity is not None
        assert (after.gates.parity.anchors, after.gates.parity.match) == (1, 1)
        records: list[int] = []
        _, receipt = load_reports(plane, world.build_context.stream_records, plane.log.ends(), records.append)
        assert (receipt.new_count, receipt.known_count > 0) == (0, True)
        assert sum(records) > sum(floors(plane).values())


@pytest.mark.parametrize("to_head", [False, True])
def test_a_rebuild_on_a_trimmed_log_folds_the_archive_and_goes_on_in_the_log(plane: Plane, tmp_path: Path, to_head: bool) -> None:
    archive = archive_of(plane)
    archive_closed_ranges(plane.ranges, archive)
    if to_head:
        archive_up_to(plane.ranges, archive, plane.log.ends())
    trim(plane, plan_trim(plane, archive))
    assert all(floors(plane).values())
    assert rebuild(plane).unchanged
    live = plane.ensure_live()
    path = pack_with(tmp_path, [WITH_ANOTHER_GROUP])
    plane.profile = plane.profile.model_copy(update={"pack": str(path)})
    receipt = rebuild(plane, ProjectionFold(plane.log, archive, plane.profile))
    assert receipt.beside.basis == plane.row(live.projection_id).basis
    assert receipt.records == sum(int(part.offset) for part in plane.log.ends().partitions)
    assert receipt.comparison is not None
    assert receipt.comparison.compared_keys["account_activity v2"] > 0
    assert receipt.may_go_live
    assert (
        switch_live(plane, receipt.beside.registry_digest, ProjectionFold(plane.log, archive, plane.profile)).beside.status
        == "live"
    )


def test_a_fold_that_cannot_begin_at_the_first_record_refuses(plane: Plane, tmp_path: Path) -> None:
    ends = plane.log.ends()
    plane.log.truncate_before(ends)  # type: ignore[attr-defined]
    path = pack_with(tmp_path, [WITH_ANOTHER_GROUP])
    plane.profile = plane.profile.model_copy(update={"pack": str(path)})
    with pytest.raises(PositionTrimmed, match=r"is kept from offset \d+ on; 0 is gone"):
        rebuild(plane)
    beside = plane.open_beside()
    assert beside.basis.partitions == ()
    with pytest.raises(PositionTrimmed):
        plane.projector(beside).apply_available(max_records=10)
    observation = observe(plane, beside, stalled_seconds=0)
    assert observation.refusal == "HISTORY_LOST"
    assert judge(observation, plane.profile.thresholds)[0] is PostureState.RED
    assert plane.reading_refusal(beside.basis) is not None
    assert plane.reading_refusal(ends) is None


@pytest.mark.parametrize("seed", range(4))
def test_trimmed_anywhere_a_lost_projection_comes_back_byte_for_byte(plane: Plane, seed: int) -> None:
    """Whatever is archived, however far the log is trimmed behind that: the fold is that of everything."""
    rng = random.Random(seed)
    archive = archive_of(plane)
    ends = plane.log.ends().partitions
    archived_ends = {end.partition_id: rng.randint(0, int(end.offset)) for end in ends}
    basis = make_basis(STREAM, {end.partition_id: end.moved(archived_ends[end.partition_id]) for end in ends})
    archive_up_to(plane.ranges, archive, basis)
    floor = {name: rng.randint(0, archived) for name, archived in archived_ends.items()}
    plane.log.truncate_before(make_basis(STREAM, {end.partition_id: end.moved(floor[end.partition_id]) for end in ends}))  # type: ignore[attr-defined]
    before = plane.ensure_live()
    state = contents(plane, before.projection_id)
    with plane.pool.connection() as connection:
        connection.execute("UPDATE ofp.projection SET status = 'retired', run_config_digest = 'gone'")
    again = plane.ensure_live()
    assert again.projection_id != before.projection_id
    projector = plane.projector(again)
    while projector.apply_available(max_records=rng.randint(1, 90)) is not None:
        projector.forget()
    assert plane.row(again.projection_id).basis == plane.row(before.projection_id).basis
    assert contents(plane, again.projection_id) == state


def contents(plane: Plane, projection_id: int) -> list[object]:
    """What a projection serves from and counts."""
    with plane.pool.connection() as connection:
        row = connection.execute("SELECT basis, watermark FROM ofp.projection WHERE projection_id = %s", (projection_id,))
        counts = "SELECT partition_id, records, applied, duplicates, failed, ignored FROM ofp.projection_partition"
        parts = connection.execute(f"{counts} WHERE projection_id = %s ORDER BY partition_id", (projection_id,))
        stored = stored_events(connection, projection_id, plane.registry_of(plane.row(projection_id)))
        events = {(KEY_TYPE_CODES[key_type], key_id): matrix for (key_type, key_id), matrix in stored.items()}
        keys = sorted(events)
        served = [(int(events[key][0, 0]), int(events[key][0, -1])) for key in keys]
        return [row.fetchall(), parts.fetchall(), keys, served, answers(plane, projection_id, keys)]


def answers(plane: Plane, projection_id: int, keys: list[tuple[int, str]]) -> list[bytes]:
    """The hashed bytes of what a projection serves for each key, all groups, at its watermark."""
    row = plane.row(projection_id)
    assert row.watermark is not None
    groups: dict[str, list[FeatureGroupRef]] = {}
    for group in plane.registry_of(row).groups.values():
        ref = FeatureGroupRef(group_name=group.name, group_version=group.version)
        groups.setdefault(group.key_type, []).append(ref)
    reader, key_types = plane.reader(row), {code: name for name, code in KEY_TYPE_CODES.items()}
    return [
        reader.answer(
            GetFeaturesRequest(
                context_pins=plane.profile.context_pins,
                feature_keys=(FeatureKey(key_type=KeyType(key_types[code]), key_id=key_id),),
                feature_groups=tuple(groups[key_types[code]]),
                as_of_time_utc=format_time(row.watermark),
                request_context={"amount_minor": 100},
            )
        ).hashed
        for code, key_id in keys
    ]


def test_a_rebuild_on_kinesis_whose_shards_split_and_expired(dsn: str, tmp_path: Path) -> None:
    client, everything = FakeKinesis(), deliveries()
    with open_pool(dsn, max_size=8) as pool:
        evidence = StoredEvidence(pool, STREAM)
        log = KinesisLog.create(client, STREAM, 2, "payload.account_id", sleep=lambda _: None, evidence=evidence)
        plane = Plane(profile(tmp_path, log_kind="kinesis"), dsn, pool, log)
        records, clock = list(everything.records()), everything.clock()
        third = len(records) // 3
        log.append(records[:third], clock)
        client.split(log.partitions()[0].partition_id)
        log.append(records[third : 2 * third], clock)
        archive_up_to(plane.ranges, plane.archive, log.ends())
        live = plane.ensure_live()
        while plane.projector(live).apply_available(max_records=40) is not None:
            pass
        client.pass_time(hours=20)
        assert plane.projector(live).apply_available(max_records=40) is None  # seen at the head
        client.pass_time(hours=10)
        later = KinesisLog.create(client, STREAM, 2, "payload.account_id", sleep=lambda _: None, evidence=evidence)
        later.append(records[2 * third :], clock)
        assert len(later.partitions()) == 3
        plane = Plane(plane.profile, dsn, pool, later)
        while plane.projector(live).apply_available(max_records=40) is not None:
            pass
        state = contents(plane, live.projection_id)
        path = pack_with(tmp_path, [WITH_ANOTHER_GROUP])
        plane.profile = plane.profile.model_copy(update={"pack": str(path)})
        receipt = rebuild(plane, ProjectionFold(later, plane.archive, plane.profile))
        assert receipt.records == len(records)
        assert receipt.beside.basis == plane.row(live.projection_id).basis
        assert receipt.comparison is not None
        assert receipt.comparison.compared_keys["account_activity v1"] > 0
        assert receipt.may_go_live
        with pool.connection() as connection:
            connection.execute("UPDATE ofp.projection SET status = 'retired', run_config_digest = 'gone'")
        plane.profile = plane.profile.model_copy(update={"pack": "card_payments"})
        again = plane.ensure_live()
        assert again.projection_id != live.projection_id
        while plane.projector(again).apply_available(max_records=70) is not None:
            pass
        assert contents(plane, again.projection_id) == state
