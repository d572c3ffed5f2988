"""Who reads feature groups, by what is stored: datasets, models trained on them, and rules of decisions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ofp_platform.offline.runs.builder import build
from ofp_platform.online.plane import profile_pack
from ofp_platform.registry.pack import pack_digest
from ofp_platform.storage import feature_readers
from ofp_platform.storage.feature_readers import FeatureReaders, TooManyReaders
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.offline.build_run import RunState
from ofp_platform.vocabulary.offline.model_lineage import LineageModel, ModelLineage
from ofp_platform_tests.oracle.labelled_plane import LabelledPlane


@pytest.fixture(scope="module")
def world(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelledPlane]:
    made = LabelledPlane.prepare(module_dsn, tmp_path_factory.mktemp("readers"))
    yield made
    made.plane.close()


def readers_of(world: LabelledPlane, digest: str | None = None, **changes: Any) -> dict[tuple[str, str], list[tuple[str, str]]]:
    pins = world.plane.profile.context_pins.model_copy(update=changes)
    readers = FeatureReaders(world.objects, world.plane.pool, pins)
    by_group = readers.of_groups(digest or pack_digest(profile_pack(world.plane.profile)))
    return {group: [(reader.kind, reader.name) for reader in several] for group, several in by_group.items()}


def test_datasets_models_and_rules_are_readers(world: LabelledPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    account, merchant = ("account_activity", "v1"), ("merchant_activity", "v1")
    assert readers_of(world) == {account: [("decision_rule", "rule:v1")]}
    run = build(world.build_context, world.build_context.ledger.submit(world.intent()).run_key)
    assert run.state is RunState.DONE
    assert run.outcome is not None
    lineage = ModelLineage(
        dataset_name="fraud_by_payment",
        dataset_identity=run.outcome["dataset_identity"],
        manifest_digest="1" * 64,
        content_digest="2" * 64,
        inputs=("merchant_activity_v1__count_24h",),
        protocol={},
        seed=0,
        trees=1,
        scikit_learn="1",
        training_rows=1,
        test_rows=1,
        models=(LineageModel(name="m", path="learning/m", sha256="3" * 64, scores={}),),
    )
    world.objects.put_if_absent("learning/x/lineage-1.json", canonical_bytes(lineage.model_dump(mode="json")))
    world.objects.put_if_absent("learning/x/lineage-2.json", b"no lineage")
    assert readers_of(world) == {
        account: [("dataset", "fraud_by_payment"), ("decision_rule", "rule:v1")],
        merchant: [("dataset", "fraud_by_payment"), ("model", "on fraud_by_payment")],
    }
    assert readers_of(world, "f" * 64) == {}
    assert readers_of(world, run_id="another") == {}
    monkeypatch.setattr(feature_readers, "MOST_OBJECTS", 1)
    with pytest.raises(TooManyReaders):
        readers_of(world)
