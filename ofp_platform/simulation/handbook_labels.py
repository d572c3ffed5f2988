"""The outcomes in a handbook file as label assertions: a fraud is observed seven days after its transaction.

That is by the simulated clock of the replay, and the source says so: `LabelStore.append` admits them by that clock
(`as_observed`).
The others are never asserted to be genuine; what their silence means is the policy's to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ofp_platform.simulation.handbook import REPORT_DELAY
from ofp_platform.simulation.handbook_file import OUTCOME, TIME, handbook_columns
from ofp_platform.vocabulary.columns import time_texts
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion

LABEL_TYPE = "fraud"
EVENT_CLASS = "transaction"
SOURCE = "handbook:simulated-clock"
_COLUMNS = ("transaction_id", TIME, OUTCOME)


def handbook_labels(path: Path) -> Iterator[LabelAssertion]:
    """One assertion of value 1 per fraud of the whole file, by the event ids of `HandbookReplay`, in file order.

    Also of frauds that are observed after the file's last transaction: as of any earlier time they are not known.

    Raises:
        HandbookFileError: see `handbook_columns`.
    """
    for part in handbook_columns(path, _COLUMNS):
        is_fraud = part[OUTCOME] == 1
        moments = part[TIME][is_fraud]
        event_times, report_times = time_texts(moments), time_texts(moments + REPORT_DELAY)
        for number, effective_time, observed_time in zip(
            part["transaction_id"][is_fraud].tolist(), event_times, report_times, strict=True
        ):
            yield LabelAssertion(
                event_class=EVENT_CLASS,
                event_id=f"transaction-{number:07d}",
                label_type=LABEL_TYPE,
                value=1,
                effective_time_utc=effective_time,
                observed_time_utc=observed_time,
                source=SOURCE,
            )
