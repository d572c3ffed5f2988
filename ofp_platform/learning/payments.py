"""Datasets of payments under the protocol: which of their columns play which part, and which of their days are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import pyarrow.compute as pc

from ofp_platform.learning.protocol import HANDBOOK, Protocol, ProtocolUnmet
from ofp_platform.learning.training import BASELINE, NO_GATES, BoostedFile, TrainingReport, train
from ofp_platform.learning.training_rows import Columns
from ofp_platform.offline.datasets.dataset_reader import read_dataset
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest
from ofp_platform.vocabulary.retraining_policy import EstimatorName, Metric, SixDigits
from ofp_platform.vocabulary.times import parse_time, to_datetime

_ENTITIES = ("card_id", "account_id", "customer_id", "device_id", "merchant_id")
_AMOUNT = "payload__amount_minor"


def train_on(
    objects: ObjectStore,
    manifest: DatasetManifest,
    protocol: Protocol,
    *,
    trees: int,
    allow_hindsight: bool = False,
    entity: str | None = None,
    amount: str | None = None,
    estimators: Sequence[EstimatorName | BoostedFile] = BASELINE,
    gates: Mapping[Metric, SixDigits] = NO_GATES,
) -> TrainingReport:
    """Train on a dataset that has one row per payment.

    `entity`: the column of the id whose known frauds leave the test; default: of a card, else of an account, and so on.
    `amount`: a payload column that the model sees too; default: `payload__amount_minor`, or the only one of integers. `gates`:
    see `train`.

    Raises:
        DatasetNotAdmitted: it is not fit to train on. NotExportable: a file has no exact form.
        ProtocolUnmet: it has not the columns, or not the days. DatasetDamaged | ObjectStoreUnavailable: see there.
    """
    columns = columns_of_payments(manifest, entity, amount)
    return train(
        objects,
        manifest,
        columns,
        protocol,
        trees=trees,
        allow_hindsight=allow_hindsight,
        estimators=estimators,
        gates=gates,
    )


def columns_of_payments(manifest: DatasetManifest, entity: str | None = None, amount: str | None = None) -> Columns:
    """Which columns of a dataset of payments play which part; `entity`, `amount`: see `train_on`.

    Raises:
        ProtocolUnmet: it has not the columns.
    """
    names = [column.name for column in manifest.columns]
    entity = entity or next((name for name in _ENTITIES if name in names), _ENTITIES[0])
    columns = Columns(card=entity, amount=amount or _amount(manifest), event_time="event_time_utc")
    required_columns = (columns.card, columns.amount or columns.event_time, columns.event_time, columns.label)
    if missing := [name for name in required_columns if name not in names]:
        message = f"dataset {manifest.dataset_name} has no column {', '.join(missing)}; it has {', '.join(names)}"
        raise ProtocolUnmet(message)
    return columns


def _amount(manifest: DatasetManifest) -> str | None:
    integers = [column.name for column in manifest.columns if column.role == "payload" and column.type == "int64"]
    return _AMOUNT if _AMOUNT in integers else integers[0] if len(integers) == 1 else None


def protocol_of(objects: ObjectStore, manifest: DatasetManifest) -> Protocol:
    """The published days where the dataset has them with labels; else the latest ones of which labels are mature.

    Raises:
        ProtocolUnmet: the dataset has no labels. DatasetDamaged | ObjectStoreUnavailable: see there.
    """
    label = manifest.label_basis
    if label is None or "event_time_utc" not in {column.name for column in manifest.columns}:
        raise ProtocolUnmet(f"dataset {manifest.dataset_name} has no labels of events")
    ends = pc.min_max(read_dataset(objects, manifest, ["event_time_utc"])["event_time_utc"]).as_py()
    oldest, day_behind = ends["min"].date(), ends["max"].date() + timedelta(days=1)
    mature_until = to_datetime(parse_time(label.as_of_utc) - label.maturity_seconds * 1_000_000).date()
    # a label basis may lie long after the last row
    behind = min(mature_until, day_behind)
    span = timedelta(days=HANDBOOK.training_days + HANDBOOK.delay_days + HANDBOOK.test_days)
    if manifest.feature_pack.pack_id == "handbook" and oldest <= HANDBOOK.first_day and HANDBOOK.first_day + span <= behind:
        return HANDBOOK
    return Protocol(first_day=behind - span)
