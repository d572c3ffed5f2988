"""Datasets of payments under the protocol: which of their columns play which part, and which of their days are used."""

from __future__ import annotations

from datetime import timedelta

import pyarrow.compute as pc

from ofp_platform.learning.protocol import HANDBOOK, Protocol, ProtocolUnmet
from ofp_platform.learning.training import Columns, TrainingReport, train
from ofp_platform.offline.datasets.dataset_reader import read_dataset
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest
from ofp_platform.vocabulary.times import parse_time, to_datetime

_CARD = {"card_payments": "card_id", "handbook": "account_id"}


def train_on(
    objects: ObjectStore, manifest: DatasetManifest, protocol: Protocol, *, trees: int, allow_hindsight: bool = False
) -> TrainingReport:
    """Train on a dataset that has one row per payment.

    Raises:
        DatasetNotAdmitted: it is not fit to train on.
        ProtocolUnmet: it has not, or not the days. DatasetDamaged | ObjectStoreUnavailable: see there.
    """
    names = {column.name for column in manifest.columns}
    card = _CARD.get(manifest.feature_pack.pack_id, "card_id")
    columns = Columns(card=card, amount="payload__amount_minor", event_time="event_time_utc")
    required_columns = (columns.card, columns.amount, columns.event_time, columns.label)
    if missing := [name for name in required_columns if name not in names]:
        raise ProtocolUnmet(f"dataset {manifest.dataset_name} has no column {', '.join(missing)}: the example needs it")
    return train(objects, manifest, columns, protocol, trees=trees, allow_hindsight=allow_hindsight)


def protocol_of(objects: ObjectStore, manifest: DatasetManifest) -> Protocol:
    """The published days where the dataset has them with labels; else the latest ones of which labels are mature.

    Raises:
        ProtocolUnmet: the dataset has no labels. DatasetDamaged | ObjectStoreUnavailable: see there.
    """
    label = manifest.label_basis
    if label is None or "event_time_utc" not in {column.name for column in manifest.columns}:
        raise ProtocolUnmet(f"dataset {manifest.dataset_name} has no labels of events")
    oldest = pc.min(read_dataset(objects, manifest, ["event_time_utc"])["event_time_utc"]).as_py().date()
    behind = to_datetime(parse_time(label.as_of_utc) - label.maturity_seconds * 1_000_000).date()
    span = timedelta(days=HANDBOOK.training_days + HANDBOOK.delay_days + HANDBOOK.test_days)
    if manifest.feature_pack.pack_id == "handbook" and oldest <= HANDBOOK.first_day and HANDBOOK.first_day + span <= behind:
        return HANDBOOK
    return Protocol(first_day=behind - span)
