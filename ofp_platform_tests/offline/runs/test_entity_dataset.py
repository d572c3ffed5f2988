"""Datasets for entity tables: the caller's rows and columns, features as of each row's own time, the bytes that are served."""

from __future__ import annotations

import io
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ofp_platform.offline.datasets.dataset_reader import read_dataset
from ofp_platform.offline.datasets.entity_table import load_entity_table, store_entity_table, table_path, table_scope
from ofp_platform.offline.parity.forensic_rebuild import RunPolicies, answer_at, replay_run
from ofp_platform.offline.runs.builder import build
from ofp_platform.offline.runs.entity_dataset import EntityRequest, dataset_from_entities, entity_intent
from ofp_platform.online.plane import profile_pack
from ofp_platform.registry.compile import compile_pack
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.tables.entity_rows import EntityColumns, read_frame
from ofp_platform.tables.table_file import TableFault
from ofp_platform.vocabulary.identity import FeatureKey, KeyType
from ofp_platform.vocabulary.offline.build_intent import AsOfBasis, PerTable, Purpose
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.build_run import RunState
from ofp_platform.vocabulary.profile import BuildLimits
from ofp_platform.vocabulary.serving import FeatureGroupRef, GetFeaturesRequest
from ofp_platform.vocabulary.snapshot_hash import snapshot_hash
from ofp_platform_tests.oracle.labelled_plane import DECIDED, FACTS, LabelledPlane

KEYS = {"account": "client", "merchant": "shop"}
GROUPS = tuple(FeatureGroupRef(group_name=name, group_version="v1") for name in ("account_activity", "merchant_activity"))


@pytest.fixture(scope="module")
def world(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelledPlane]:
    made = LabelledPlane.prepare(module_dsn, tmp_path_factory.mktemp("entities"))
    yield made
    made.plane.close()


def request(world: LabelledPlane, name: str = "mine", **changes: Any) -> EntityRequest:
    registry = compile_pack(profile_pack(world.plane.profile))
    return EntityRequest(name, registry, world.plane.profile.context_pins, FACTS, **{"groups": GROUPS, **changes})


def read(frame: Any, keys: dict[str, str] = KEYS) -> pa.Table:
    return read_frame(EntityColumns(keys, "event_timestamp"), frame)


def frame() -> pd.DataFrame:
    """Rows in no order, one of them twice, one without a merchant, with columns of the caller's own."""
    days = [19, 5, 12, 5, 20, 1]
    return pd.DataFrame(
        {
            "fraud": [0, 1, 0, 1, 0, 0],
            "client": [f"account-{number:07d}" for number in (3, 1, 2, 1, 14, 9)],
            "event_timestamp": pd.to_datetime([f"2026-01-{day:02d}T12:00:00Z" for day in days]),
            "shop": [f"merchant-{number:07d}" if number else None for number in (1, 2, 0, 2, 3, 4)],
            "weight": [0.5, 1.0, 1.25, 1.0, 0.125, 3.0],
        }
    )


def test_the_rows_are_the_callers_and_the_values_are_those_that_are_served(world: LabelledPlane, tmp_path: Path) -> None:
    wanted = request(world, as_of_basis=AsOfBasis.EVENT_TIME, label_columns=("fraud",))
    manifest, features = dataset_from_entities(world.build_context, wanted, read(frame()))
    stored = read_dataset(world.objects, manifest)
    assert stored.select(stored.column_names[: -features.num_columns]).equals(read(frame()))
    assert stored.select(features.column_names).equals(features)
    rows = [{**own, **row} for own, row in zip(pa.Table.from_pandas(frame()).to_pylist(), features.to_pylist(), strict=True)]
    assert (manifest.row_order, manifest.row_count, manifest.purpose) == ("entity_table", 6, Purpose.ANALYSIS)
    roles = {column.name: column.role for column in manifest.columns if column.role != "feature"}
    assert roles == {
        "account_id": "row_key", "merchant_id": "row_key", "as_of_time_utc": "as_of", "fraud": "label", "weight": "payload",
    }  # fmt: skip
    assert manifest.gates.feature_rows_checked > 0
    # the vector that the plane serves for these keys and this time, its values replaced by those of the row: the same hash
    declared = world.plane.profile
    run = replay_run(
        world.build_context.stream_records, world.everything, wanted.registry, declared.context_pins,
        RunPolicies.of(declared), tmp_path / "replay",
    )  # fmt: skip
    has_values = set()
    for row, text in zip(rows, frame()["event_timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"), strict=True):
        keys = [FeatureKey(key_type=KeyType(name), key_id=row[column]) for name, column in KEYS.items() if row[column]]
        groups = [group for group in GROUPS if any(group.group_name.startswith(key.key_type) for key in keys)]
        question = GetFeaturesRequest(
            context_pins=declared.context_pins, feature_keys=tuple(keys), feature_groups=tuple(groups), as_of_time_utc=text
        )
        answer = answer_at(run, question, world.plane.log.ends())
        hashed = orjson.loads(answer.hashed)
        for key in hashed["values"]:
            for group in key["by_group"]:
                prefix = f"{group['group_name']}_{group['group_version']}__"
                group["features"] = {name: wire(row.get(f"{prefix}{name}")) for name in group["features"]}
                has_values |= {name for name, value in group["features"].items() if value}
        assert snapshot_hash(hashed) == answer.hash
        if row["shop"] is None:
            assert {row[name] for name in row if name.startswith("merchant_activity")} == {None}
    assert len(has_values) > 5


def wire(value: Any) -> Any:
    return f"{value:f}" if isinstance(value, Decimal) else value


def test_a_row_knows_what_was_admitted_by_its_own_time(world: LabelledPlane) -> None:
    payments = [
        (int(batch.ts[index]), int(batch.admitted_at[index]), batch.payloads[index])
        for batch in world.batches()
        for index in range(len(batch.event_ids))
        if batch.event_types[index] == "card_payment" and batch.event_ids[index] == DECIDED
    ]
    _, admitted_at, payload = min(payments, key=lambda payment: payment[1])
    account = orjson.loads(payload)["account_id"]
    asked = pa.table(
        {
            "account_id": [account, account],
            "event_timestamp": pa.array([admitted_at - 1, admitted_at], pa.timestamp("us", "UTC")),
        }
    )
    wanted = request(world, "known", groups=GROUPS[:1])
    manifest, table = dataset_from_entities(world.build_context, wanted, read(asked, {"account": "account_id"}))
    before, after = table["account_activity_v1__count_24h"].to_pylist()
    assert after > before
    assert [column.name for column in manifest.columns][:3] == ["account_id", "as_of_time_utc", "known_until_utc"]


def test_the_table_is_part_of_the_identity_and_its_encoding_is_not(world: LabelledPlane) -> None:
    rows = read(frame())
    scope, pins = table_scope(rows), world.plane.profile.context_pins
    first = entity_intent(world.build_context, request(world, "identity"), rows)
    assert first.scope == scope
    assert entity_intent(world.build_context, request(world, "identity"), rows.slice(0, 5)).scope != scope
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="none", row_group_size=2)
    path = (world.objects.folder or Path()) / table_path(pins, scope.table)
    path.chmod(0o644)
    path.write_bytes(sink.getvalue())
    assert load_entity_table(world.objects, pins, scope).equals(rows)


@pytest.mark.parametrize("damage", ["gone", "other rows", "no table"])
def test_a_table_that_is_not_what_the_intent_names_is_refused(world: LabelledPlane, damage: str) -> None:
    rows = read(frame().assign(damage=damage))
    intent = entity_intent(world.build_context, request(world, "damaged"), rows)
    assert isinstance(intent.scope, PerTable)
    path = (world.objects.folder or Path()) / table_path(intent.context_pins, intent.scope.table)
    path.chmod(0o644)
    if damage == "gone":
        path.unlink()
    elif damage == "other rows":
        pq.write_table(rows.slice(1), path)
    else:
        path.write_bytes(b"rows")
    build_context = world.build_context
    run = build(build_context, build_context.ledger.submit(intent).run_key)
    assert run.state is RunState.FAILED
    assert run.refusal is not None
    assert (run.refusal.reason, run.refusal.field) == (BuildReason.INVALID_INTENT, "scope.table")


def test_what_the_scope_says_must_be_so_in_the_table(world: LabelledPlane) -> None:
    rows = read(frame())
    scope, pins = table_scope(rows), world.plane.profile.context_pins
    store_entity_table(world.objects, pins, rows, scope)
    for wrong in ({"rows": 5}, {"columns": ("fraud",)}, {"key_types": (KeyType.ACCOUNT,)}):
        with pytest.raises(BuildRefused, match="are not those that the scope names"):
            load_entity_table(world.objects, pins, scope.model_copy(update=wrong))


def test_refusals_name_what_is_wrong(world: LabelledPlane) -> None:
    context = world.build_context
    broken, named = frame(), frame().rename(columns={"weight": "account_activity_v1__count_24h"})
    broken.loc[1, "event_timestamp"] = None
    with pytest.raises(TableFault, match="row 2: event_timestamp: says nothing"):
        read(broken)
    with pytest.raises(BuildRefused, match=r"FEATURE_PROFILE_UNRESOLVED \(scope.columns.1\)"):
        dataset_from_entities(context, request(world), read(named))
    with pytest.raises(BuildRefused, match=r"FEATURE_PROFILE_UNRESOLVED \(feature_groups.1\)"):
        dataset_from_entities(context, request(world), read(frame().drop(columns="shop"), {"account": "client"}))
    with pytest.raises(BuildRefused, match="NOTHING_TO_BUILD"):
        dataset_from_entities(context, request(world), read(frame()).slice(0, 0))
    object.__setattr__(context, "limits", BuildLimits(max_rows=5))
    with pytest.raises(BuildRefused, match=r"BUILD_TOO_LARGE.*at least 6 rows"):
        dataset_from_entities(context, request(world), read(frame()))


def test_a_table_of_another_run_is_not_there(world: LabelledPlane) -> None:
    rows = read(frame())
    objects: ObjectStore = world.objects
    pins = world.plane.profile.context_pins
    scope = table_scope(rows)
    store_entity_table(objects, pins, rows, scope)
    with pytest.raises(BuildRefused, match="no such entity table of this run"):
        load_entity_table(objects, pins.model_copy(update={"run_id": "another"}), scope)
