"""What is in force: by sequence, time and basis of control, as a replay of the steps says; and bundles read back by digest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ofp_platform.storage.bundle_events import (
    BundleDamaged,
    Moment,
    NoSuchStep,
    all_in_force,
    append_bundle_event,
    bundle_in_force,
    bundle_path,
    find_bundles,
    list_bundle_events,
    load_bundle,
    load_bundle_model,
)
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.bundle import Bundle, BundleEvent, BundleModel, BundleRef, BundleScope, BundleStep, Slot
from ofp_platform.vocabulary.loop.eval_report import Thresholds
from ofp_platform.vocabulary.loop.exact_model import ExactModel
from ofp_platform.vocabulary.offline.run_facts import TrafficMode
from ofp_platform.vocabulary.position import Basis, OffsetKind, PartitionBasis, Position
from ofp_platform.vocabulary.times import format_time, parse_time

PINS = ContextPins(scenario_id="s", run_id="r", manifest_fingerprint="0" * 64, parameter_hash="1" * 64)
SCOPES = tuple(
    BundleScope(environment="env", mode=mode, slot=slot) for mode in TrafficMode for slot in (Slot.ACTIVE, Slot.SHADOW)
)
BUNDLES = tuple(BundleRef(bundle_name=f"b{number}", digest=f"{number}" * 64) for number in range(4))
START = 1_800_000_000_000_000


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    with open_pool(dsn) as opened:
        yield opened


def event(sequence: int, step: BundleStep, bundle: BundleRef, scope: BundleScope | None = None, **more: Any) -> BundleEvent:
    fields = {"reason": "x", "actor": "who", "at_utc": format_time(START + sequence // 2 * 1_000_000), **more}
    return BundleEvent(context_pins=PINS, sequence=sequence, step=step, bundle=bundle, scope=scope, **fields)


def basis(next_offset: int, stream_name: str = "control") -> Basis:
    part = PartitionBasis(partition_id="0000", offset_kind=OffsetKind.EXCLUSIVE_NEXT, offset=next_offset)
    return Basis(stream_name=stream_name, partitions=(part,))


def test_what_is_in_force_is_what_a_replay_of_the_steps_says(pool: Pool) -> None:
    line = [event(number, BundleStep.PUBLISHED, bundle) for number, bundle in enumerate(BUNDLES)]
    for number in range(40):
        scope, bundle = SCOPES[number * 7 % 3], BUNDLES[number * 5 % 4]  # the last scope never has anything
        line.append(event(len(line), BundleStep.ACTIVATED, bundle, scope))
    with pool.connection() as connection, connection.transaction():
        for one in line:
            # other messages stand between on control
            append_bundle_event(
                connection, one, Position(stream_name="control", partition_id="0000", offset=3 * one.sequence + 5)
            )
    with pool.connection() as connection:
        for scope in SCOPES:

            def replayed(counts: Callable[[BundleEvent], bool], scope: BundleScope = scope) -> tuple[BundleRef, int] | None:
                said = [(one.bundle, one.sequence) for one in line if one.scope == scope and counts(one)]
                return said[-1] if said else None

            def stored(scope: BundleScope = scope, **at: Any) -> tuple[BundleRef, int] | None:
                force = bundle_in_force(connection, PINS, scope, **at)
                everywhere = {one.scope.key: one.in_force for one in all_in_force(connection, PINS, Moment(**at))}
                assert everywhere.get(scope.key) == force
                assert force is None or force.position.offset == 3 * force.sequence + 5
                return None if force is None else (force.bundle, force.sequence)

            for limit in range(len(line)):
                assert stored(at_sequence=limit) == replayed(lambda one, limit=limit: one.sequence <= limit)
                for shift in (-1, 0):
                    at = START + limit * 500_000 + shift
                    assert stored(at_time=at) == replayed(lambda one, at=at: parse_time(one.at_utc) <= at)
                for next_offset in range(3 * limit + 4, 3 * limit + 7):
                    told = stored(at_basis=basis(next_offset))
                    assert told == replayed(lambda one, end=next_offset: 3 * one.sequence + 5 < end)
            assert stored() == replayed(lambda _: True)
            assert stored(at_basis=basis(10**6, "another")) is None
        with pytest.raises(NoSuchStep, match="no step 44 of bundles of run 'r': it has steps 0 to 43"):
            bundle_in_force(connection, PINS, SCOPES[0], at_sequence=44)
        with pytest.raises(NoSuchStep, match="no step -1"):
            all_in_force(connection, PINS, Moment(at_sequence=-1))
        other = PINS.model_copy(update={"run_id": "other"})
        assert bundle_in_force(connection, other, SCOPES[0]) is None
        with pytest.raises(NoSuchStep, match="it has no steps yet"):
            bundle_in_force(connection, other, SCOPES[0], at_sequence=0)


def test_pages_and_names(pool: Pool) -> None:
    with pool.connection() as connection, connection.transaction():
        for number in range(5):
            ref = BundleRef(bundle_name="one", digest=f"{number:x}{'a' * 63}")
            append_bundle_event(
                connection,
                event(number, BundleStep.PUBLISHED, ref),
                Position(stream_name="control", partition_id="0000", offset=number),
            )
        page = list_bundle_events(connection, PINS, 2)
        assert [one.event.sequence for one in page] == [4, 3]
        assert [one.event.sequence for one in list_bundle_events(connection, PINS, 9, before=2)] == [1, 0]
        assert [ref.digest[0] for ref in find_bundles(connection, PINS, "one", "3a")] == ["3"]
        assert len(find_bundles(connection, PINS, "one", "")) == 5
        assert find_bundles(connection, PINS, "two", "") == []


def test_steps_are_never_changed_and_a_sequence_is_taken_once(pool: Pool) -> None:
    at = Position(stream_name="control", partition_id="0000", offset=0)
    with pool.connection() as connection:
        append_bundle_event(connection, event(0, BundleStep.PUBLISHED, BUNDLES[0]), at)
    with pool.connection() as connection, pytest.raises(psycopg.errors.UniqueViolation):
        append_bundle_event(connection, event(0, BundleStep.PUBLISHED, BUNDLES[1]), at)
    for statement in ("UPDATE ofp.bundle_event SET at = 1", "DELETE FROM ofp.bundle_event", "TRUNCATE ofp.bundle_event"):
        with pool.connection() as connection, pytest.raises(psycopg.errors.RestrictViolation, match="never changed"):
            connection.execute(statement)


def bundle_of(**changed: Any) -> Bundle:
    digest = "2" * 64
    fields = {
        "bundle_name": "rules",
        "event_type": "payment",
        "key_fields": {"card": "card_id"},
        "groups": [{"group_name": "card_activity", "group_version": "v1"}],
        "feature_definition_set": {"pack_id": "p", "revision": 1, "digest": digest},
        "guardrails": [
            {"reason_code": "R", "outcome": "review", "all_of": [{"field": "x", "operator": "at_least", "value": "1.50"}]}
        ],
        **changed,
    }
    return Bundle.model_validate(fields)


def test_a_bundle_is_read_back_by_its_digest(tmp_path: Path) -> None:
    objects = ObjectStore(str(tmp_path / "objects"))
    bundle = bundle_of()
    with pytest.raises(BundleDamaged, match=r"the bundle bundles/rules/[0-9a-f]+\.json is not in"):
        load_bundle(objects, bundle.ref)
    objects.put_if_absent(bundle_path(bundle.ref), bundle.stored())
    assert load_bundle(objects, bundle.ref) == bundle

    def stored_as(content: bytes, name: str = "rules") -> BundleRef:
        ref = BundleRef(bundle_name=name, digest=sha256_hex(content))
        objects.put_if_absent(bundle_path(ref), content)
        return ref

    newer = bundle.stored().replace(b'"contract_version":"v0"', b'"contract_version":"v7"')
    with pytest.raises(BundleDamaged, match="no bundle that this release knows: it says contract version 'v7'"):
        load_bundle(objects, stored_as(newer))
    with pytest.raises(BundleDamaged, match=r"is no bundle$"):
        load_bundle(objects, stored_as(b"[1]"))
    with pytest.raises(BundleDamaged, match="holds bundle rules"):
        load_bundle(objects, stored_as(bundle.stored(), "others"))
    with pytest.raises(BundleDamaged, match="not in its canonical form"):
        load_bundle(objects, stored_as(bundle.stored() + b"\n"))
    assert objects.folder is not None
    (objects.folder / bundle_path(bundle.ref)).write_bytes(b"{}")
    with pytest.raises(BundleDamaged, match="it was changed"):
        load_bundle(objects, bundle.ref)


def test_the_model_of_a_bundle_is_read_back_by_its_digest(tmp_path: Path) -> None:
    objects = ObjectStore(str(tmp_path / "objects"))
    fields = {
        "model_name": "m",
        "inputs": [{"source": "payload", "field": "x", "scale": 0}],
        "score_scale": 6,
        "score_kind": "log_odds",
        "form": {"form": "linear", "base": 0, "weights": [1], "references": [0], "least": [0], "greatest": [9]},
    }
    model = ExactModel.model_validate(fields)
    thresholds = Thresholds(review_from=1, decline_from=2)
    named = BundleModel(path="learning/m.json", digest=model.digest, thresholds=thresholds)
    with pytest.raises(BundleDamaged, match=r"the model learning/m\.json is not in"):
        load_bundle_model(objects, named)
    objects.put_if_absent("learning/m.json", model.stored())
    assert load_bundle_model(objects, named) == model
    with pytest.raises(BundleDamaged, match="it was changed"):
        load_bundle_model(objects, named.model_copy(update={"digest": "3" * 64}))
    objects.put_if_absent("learning/other.json", b"{}")
    with pytest.raises(BundleDamaged, match=r"is no model in exact form$"):
        load_bundle_model(objects, BundleModel(path="learning/other.json", digest=sha256_hex(b"{}"), thresholds=thresholds))
