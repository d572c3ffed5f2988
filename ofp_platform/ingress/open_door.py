"""The door of a run, by the kind of its log."""

from __future__ import annotations

from typing import cast

from ofp_platform.ingress.batches import IngressRefused
from ofp_platform.ingress.class_map import ClassMap
from ofp_platform.ingress.committing_door import CommittingDoor
from ofp_platform.ingress.door import Door, class_map_path
from ofp_platform.ingress.gate import Gate
from ofp_platform.ingress.publishing_door import PublishingDoor
from ofp_platform.log.admission import Admission
from ofp_platform.log.policy_facts import note_policy
from ofp_platform.log.port import EventLog
from ofp_platform.log.postgres import PostgresLog, log_answering
from ofp_platform.log.publishing import Publisher, PublishingLog
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.identity import ContextPins, pins_digest

_RUN = "INSERT INTO ofp.admission_run (pins_digest) VALUES (%s) ON CONFLICT DO NOTHING"
_RUN_NUMBER = "SELECT run_number FROM ofp.admission_run WHERE pins_digest = %s"


def open_door(
    pool: Pool,
    traffic: EventLog,
    context: EventLog | None,
    objects: ObjectStore,
    pins: ContextPins,
    class_map: ClassMap,
    *,
    needs_ready: bool = False,
) -> Door:
    """The door of a run, for the types of a class map, which is kept under its digest; that another one is in force now, is a
    governance fact. `needs_ready`: the run has a stream of control.

    Raises:
        IngressRefused: the streams are of different kinds, or the role does not see the run.
        LogUnavailable | ObjectStoreUnavailable: see there.
    """
    logs = [log for log in (traffic, context) if log is not None]
    commits = all(isinstance(log, PostgresLog) for log in logs)
    if not commits and not all(isinstance(log, Publisher) for log in logs):
        kinds = ", ".join(f"{log.stream_name}: {type(log).__name__}" for log in logs)
        raise IngressRefused(f"no door leads into such streams ({kinds}): both are in PostgreSQL, or both are published to")
    objects.put_same(class_map_path(class_map.digest), class_map.stored())
    key_paths = [None if log is None else cast(PublishingLog | PostgresLog, log).partition_key for log in (traffic, context)]
    admissions = [None if path is None else Admission(path) for path in key_paths]
    gate = Gate(pins, class_map, cast(Admission, admissions[0]), admissions[1])
    with log_answering(), pool.connection() as connection, connection.transaction():
        connection.execute(_RUN, (pins_digest(pins),))
        row = connection.execute(_RUN_NUMBER, (pins_digest(pins),)).fetchone()
        if row is None:
            raise IngressRefused(f"the database role of ingress does not see run {pins.run_id!r}: register it for that run")
        note_policy(connection, pins, "class_map", class_map.digest)
    if commits:
        return CommittingDoor(
            pool, cast(PostgresLog, traffic), cast(PostgresLog | None, context), objects, gate, row[0], needs_ready
        )
    return PublishingDoor(
        pool, cast(PublishingLog, traffic), cast(PublishingLog | None, context), objects, gate, row[0], needs_ready
    )
