"""The messages of control, appended to its stream: READY, RUN_END, RUN_CANCEL, in the transaction that records the step."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from ofp_platform.log.admission import Admission
from ofp_platform.log.admitted import AdmittedColumns
from ofp_platform.log.port import RecordRefusal
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import Position
from ofp_platform.vocabulary.scenario import ControlPayload

CONTROL_SCHEMA_VERSION = "v1"


class ControlRefused(Exception):
    """The log does not take what control says; the text says why."""


def append_to_control(
    connection: Connection[Any], log: PostgresLog, event_type: str, pins: ContextPins, payload: ControlPayload, at_utc: str
) -> Position:
    """Append one message in the caller's transaction, and say where it stands. Call `log.tell` when that has committed.

    Raises:
        ControlRefused: it is no event that a log takes. LogUnsettled | StreamNotFound | psycopg.Error: see `append_within`.
    """
    envelope = {
        "event_id": payload.message_id,
        "event_type": event_type,
        "schema_version": CONTROL_SCHEMA_VERSION,
        "ts_utc": at_utc,
        **pins.wire(),
        "payload": payload.model_dump(mode="json"),
    }
    admitted_record = Admission(log.partition_key).admit(0, envelope)
    if isinstance(admitted_record, RecordRefusal):
        raise ControlRefused(f"control takes no such {event_type}: {admitted_record.message}")
    records = AdmittedColumns()
    records.add(0, admitted_record)
    [(partition_id, offset)], incarnation = log.append_within(connection, records, None)
    return Position(stream_name=log.stream_name, partition_id=partition_id, offset=offset, incarnation=incarnation)
