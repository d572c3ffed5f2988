"""Failures of log and archive while a replay is read, as refusals of a build."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ofp_platform.log.archive_segment import SegmentDamaged
from ofp_platform.log.archive_store import ReceiptDamaged, SegmentMissing
from ofp_platform.log.port import LogRefused, LogUnavailable, PartitionNotFound
from ofp_platform.log.span_records import ReplayGap
from ofp_platform.offline.sources.store_outage import answering
from ofp_platform.storage.objects import ObjectStoreUnavailable
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused


@contextmanager
def replaying(field: str = "replay") -> Iterator[None]:
    """Turn errors of log and archive into refusals of the field: REPLAY_INCOMPLETE, ARCHIVE_DAMAGED, STORE_UNAVAILABLE."""
    try:
        with answering():
            yield
    except (ReplayGap, LogRefused, PartitionNotFound) as error:
        raise BuildRefused(BuildReason.REPLAY_INCOMPLETE, str(error), field) from error
    except (SegmentMissing, SegmentDamaged, ReceiptDamaged) as error:
        raise BuildRefused(BuildReason.ARCHIVE_DAMAGED, str(error), field) from error
    except (LogUnavailable, ObjectStoreUnavailable) as error:
        raise BuildRefused(BuildReason.STORE_UNAVAILABLE, str(error)) from error
