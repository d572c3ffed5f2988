"""Messages of the plane itself, appended to the streams that are its own: control (runs, posture, bundles) and decisions.

These streams stand in PostgreSQL whatever the log of traffic is, so a message is appended in the transaction that records what it
says: neither exists without the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from psycopg import Connection

from ofp_platform.log.admission import Admission
from ofp_platform.log.admitted import AdmittedColumns
from ofp_platform.log.port import RecordRefusal
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.model import Model
from ofp_platform.vocabulary.position import Position

MESSAGE_SCHEMA_VERSION = "v1"


class MessageRefused(Exception):
    """The log does not take what the plane says; the text says why."""


class Message(NamedTuple):
    """One message: `message_id` is its identity in the stream; `at_utc` its event time."""

    event_type: str
    message_id: str
    pins: ContextPins
    at_utc: str
    payload: Model


def append_messages(connection: Connection[Any], log: PostgresLog, messages: Sequence[Message]) -> list[Position]:
    """Append messages in the caller's transaction, and say where each stands. Call `log.tell` when that has committed.

    Raises:
        MessageRefused: one is no event that a log takes; nothing is appended.
        LogUnsettled | StreamNotFound | psycopg.Error: see `append_within`.
    """
    if not messages:
        return []
    admission, records = Admission(log.partition_key), AdmittedColumns()
    for index, message in enumerate(messages):
        envelope = {
            "event_id": message.message_id,
            "event_type": message.event_type,
            "schema_version": MESSAGE_SCHEMA_VERSION,
            "ts_utc": message.at_utc,
            **message.pins.wire(),
            "payload": message.payload.model_dump(mode="json", exclude_none=True),
        }
        admitted_record = admission.admit(index, envelope)
        if isinstance(admitted_record, RecordRefusal):
            raise MessageRefused(f"stream {log.stream_name} takes no such {message.event_type}: {admitted_record.message}")
        records.add(index, admitted_record)
    places, incarnation = log.append_within(connection, records, None)
    return [
        Position(stream_name=log.stream_name, partition_id=partition_id, offset=offset, incarnation=incarnation)
        for partition_id, offset in places
    ]
