"""`ofp model`: which days are trained on, and the table. (`test_demo` trains for real.)"""

from __future__ import annotations

from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from ofp_platform.cli.offline.model_table import model_table
from ofp_platform.learning.payments import protocol_of
from ofp_platform.learning.protocol import HANDBOOK, Protocol, ProtocolUnmet
from ofp_platform.learning.scores import Scores
from ofp_platform.learning.training import TrainedModel, TrainingReport

EVALUATED: Any = None  # the table does not look at it
REPORT = TrainingReport(
    (
        TrainedModel("random_forest", Scores(0.8654, 0.6619, 0.2914), "path", "0" * 64, EVALUATED, "report"),
        TrainedModel("mine", Scores(1, 1, 1), "", "", EVALUATED, ""),
    ),
    training_rows=3,
    test_rows=2,
    lineage_path="lineage",
    lineage={},
)


def manifest(pack_id: str, as_of: str | None) -> Any:
    label = None if as_of is None else SimpleNamespace(as_of_utc=as_of, maturity_seconds=7 * 86_400)
    columns = [SimpleNamespace(name="event_time_utc")]
    pack = SimpleNamespace(pack_id=pack_id)
    return SimpleNamespace(dataset_name="set", label_basis=label, columns=columns, feature_pack=pack)


@pytest.mark.parametrize(
    ("pack_id", "oldest", "as_of", "first_day"),
    [
        ("handbook", datetime(2018, 4, 1, tzinfo=UTC), "2018-09-30T23:33:53Z", HANDBOOK.first_day),
        ("handbook", datetime(2018, 4, 1, tzinfo=UTC), "2018-08-22T00:00:00Z", HANDBOOK.first_day),
        # the last day of test would not be mature
        ("handbook", datetime(2018, 4, 1, tzinfo=UTC), "2018-08-21T23:59:59Z", date(2018, 7, 24)),
        ("handbook", datetime(2018, 7, 26, tzinfo=UTC), "2018-09-30T23:33:53Z", date(2018, 9, 2)),
        ("card_payments", datetime(2018, 4, 1, tzinfo=UTC), "2018-09-30T23:33:53Z", date(2018, 9, 2)),
        # labels of long after the last row, which is of the 30th of September
        ("card_payments", datetime(2018, 4, 1, tzinfo=UTC), "2019-05-01T00:00:00Z", date(2018, 9, 10)),
    ],
)
def test_the_days(monkeypatch: pytest.MonkeyPatch, pack_id: str, oldest: datetime, as_of: str, first_day: date) -> None:
    times = pa.table({"event_time_utc": pa.array([oldest, datetime(2018, 9, 30, 12, tzinfo=UTC)], pa.timestamp("us", tz="UTC"))})
    monkeypatch.setattr("ofp_platform.learning.payments.read_dataset", lambda *_: times)
    assert protocol_of(None, manifest(pack_id, as_of)) == Protocol(first_day)  # type: ignore[arg-type]  # it is not looked at


def test_no_labels_no_days() -> None:
    with pytest.raises(ProtocolUnmet, match="set has no labels"):
        protocol_of(None, manifest("handbook", None))  # type: ignore[arg-type]  # it is not looked at


def test_the_published_scores_stand_beside_ours_for_the_published_days_only() -> None:
    head, forest, mine = model_table(REPORT, HANDBOOK)
    assert head.split() == ["(ours", "/", "published)", "AUC", "ROC", "average", "precision", "card", "precision@100"]
    assert forest.split() == ["random", "forest", "0.865", "/", "0.867", "0.662", "/", "0.658", "0.291", "/", "0.287"]
    assert mine.split() == ["mine", "1.000", "1.000", "1.000"]
    assert "/" not in "".join(model_table(REPORT, Protocol(date(2026, 1, 1))))
