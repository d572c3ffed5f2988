"""One snapshot out of the log: as it was served, and where serving would refuse."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from ofp_platform.log.archive_store import Archive
from ofp_platform.offline.parity.forensic_rebuild import NotRebuildable, RunPolicies, answer_at, rebuild_recorded
from ofp_platform.offline.sources.stream_records import StreamRecords
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.serving import GetFeaturesRequest
from ofp_platform_tests.oracle import fold
from ofp_platform_tests.oracle.rebuilt import replayed
from ofp_platform_tests.oracle.small_plane import RUN_CONFIG, SmallPlane, payment
from ofp_platform_tests.oracle.strategies import LATENESS, SECOND, SKEW, START

STREAMS = (f"forensic-{number}" for number in itertools.count())
ACCOUNT, SHOP = ("account", "a-1"), ("merchant", "m-1")
GROUPS = [("ratios", "v2"), ("shop", "v1")]
POLICIES = RunPolicies(RUN_CONFIG, SKEW, LATENESS)


@pytest.fixture
def pool(module_dsn: str) -> Iterator[Pool]:
    with open_pool(module_dsn) as opened:
        yield opened


@pytest.fixture
def plane(pool: Pool) -> SmallPlane:
    plane = SmallPlane(pool, next(STREAMS))
    plane.append([payment(f"e-{n}", n * SECOND, amount=n, status="odd") for n in range(40)], (0, 1))
    plane.drain()
    return plane


def held(plane: SmallPlane, tmp_path: Path) -> StreamRecords:
    return StreamRecords(plane.log, Archive(ObjectStore(str(tmp_path / "objects")), plane.log.stream_name))


def test_a_rebuild_answers_behind_the_serving_horizon(plane: SmallPlane, tmp_path: Path) -> None:
    as_of, basis = START + 5 * SECOND, plane.log.ends()
    body = plane.request([ACCOUNT, SHOP], GROUPS, as_of)
    with pytest.raises(ContractError) as caught:
        plane.reader.answer(body)
    assert caught.value.reason is Reason.AS_OF_BEFORE_HORIZON
    answer = answer_at(replayed(plane, tmp_path / "fold"), GetFeaturesRequest.model_validate_json(body), basis)
    known = plane.known(basis)
    by_key = orjson.loads(answer.body)["snapshot"]["by_key"]
    for (key_type, key_id), found in zip([ACCOUNT, SHOP], by_key, strict=True):
        own = [event for event in known.events.values() if fold._touches(event, plane.content, key_type, key_id)]
        for group, made in zip(
            [one for one in plane.content["groups"] if one["key_type"] == key_type and (one["name"], one["version"]) in GROUPS],
            found["by_group"],
            strict=True,
        ):
            assert made["features"] == fold.group_features(group, own, as_of, {})
            assert any(value for value in made["features"].values())
    # a question behind the horizon has none: what the values count is seen by freshness, too
    expected = fold.snapshot(known, plane.content, [ACCOUNT, SHOP], GROUPS, as_of, allowed_lateness=LATENESS, forensic=True)
    provenance = orjson.loads(answer.body)["provenance"]
    assert provenance["freshness"] == expected.freshness
    assert [one["last_update_event_time"] for one in provenance["freshness"]] == [fold.time_text(as_of)] * 2
    assert provenance["warnings"] == expected.warnings == []


def test_a_recorded_snapshot_is_rebuilt_to_the_byte(plane: SmallPlane, tmp_path: Path) -> None:
    answer = plane.reader.answer(plane.request([ACCOUNT, SHOP], GROUPS, START + 41 * SECOND))
    plane.append([payment("e-late", 39 * SECOND)])
    counted: list[int] = []
    hashed = orjson.loads(answer.hashed)
    rebuilt = rebuild_recorded(
        held(plane, tmp_path), plane.registry, plane.pins, POLICIES, hashed, tmp_path / "f", counted.append
    )
    assert (rebuilt.hash, rebuilt.hashed) == (answer.hash, answer.hashed)
    assert sum(counted) == 40


def test_a_snapshot_of_an_empty_basis_is_rebuilt(pool: Pool, tmp_path: Path) -> None:
    plane = SmallPlane(pool, next(STREAMS))
    answer = plane.reader.answer(plane.request([ACCOUNT], GROUPS[:1], START))
    plane.append([payment("e-1", 0)])
    hashed = orjson.loads(answer.hashed)
    assert hashed["input_basis"]["partitions"] == []
    rebuilt = rebuild_recorded(held(plane, tmp_path), plane.registry, plane.pins, POLICIES, hashed, tmp_path / "fold")
    assert rebuilt.hash == answer.hash


def test_what_cannot_be_rebuilt_is_told(plane: SmallPlane, tmp_path: Path) -> None:
    hashed = orjson.loads(plane.reader.answer(plane.request([ACCOUNT], GROUPS[:1], START + 41 * SECOND)).hashed)
    numbers = itertools.count()

    def rebuild(**changes: object) -> None:
        changed = {name: value for name, value in {**hashed, **changes}.items() if value is not None}
        folder = tmp_path / f"fold-{next(numbers)}"
        rebuild_recorded(held(plane, tmp_path), plane.registry, plane.pins, POLICIES, changed, folder)

    with pytest.raises(NotRebuildable, match="lacks input_basis"):
        rebuild(input_basis=None)
    for other in ({"registry_digest": "9" * 64}, {"run_config_digest": "9" * 64}):
        with pytest.raises(NotRebuildable, match="another stream, run, registry or run config"):
            rebuild(**other)
    with pytest.raises(NotRebuildable, match="identity graph"):
        rebuild(graph_version={"graph_version": "g-1", "stream_name": "s", "basis": []})
    with pytest.raises(NotRebuildable, match="PROVENANCE_INCOMPLETE"):
        rebuild(graph_version="g-1")
    with pytest.raises(NotRebuildable, match="not in the registry"):
        rebuild(feature_groups=[{"group_name": "ratios", "group_version": "v9"}])
    short = Basis.model_validate({**hashed["input_basis"], "partitions": hashed["input_basis"]["partitions"][:1]})
    run = replayed(plane, tmp_path / "short", basis=short)
    request = GetFeaturesRequest.model_validate_json(plane.request([ACCOUNT], GROUPS[:1], START + 41 * SECOND))
    with pytest.raises(NotRebuildable, match="does not have it"):
        answer_at(run, request, plane.log.ends())
