"""From the records of the context stream to links: what each says, or why it is not applied."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import orjson
from pydantic import ValidationError

from ofp_platform.identity.entities import LinkEvent
from ofp_platform.log.port import RecordBatch
from ofp_platform.registry.apply_failure import ApplyFailureReason
from ofp_platform.registry.belonging import belonging
from ofp_platform.registry.models import FIRST_SCHEMA_VERSIONS
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.identity_link import LINK, UNLINK, IdentityLinkPayload
from ofp_platform.vocabulary.times import parse_time


@dataclass(frozen=True)
class PlacedLink:
    """A link and its record: `event_id`, `id_digest`: SHA-256 over class and id; `admitted_at`: microseconds."""

    offset: int | str
    event_id: str
    id_digest: bytes
    admitted_at: int
    link: LinkEvent


@dataclass(frozen=True)
class LinkFailure:
    """A record that is not applied; `detail` names fields, never a value."""

    offset: int | str
    reason: ApplyFailureReason
    detail: str


@dataclass(frozen=True)
class ContextRecords:
    """The records of a batch, each once. `ignored_records`: of types that say nothing of identity; `other_run`: of others."""

    links: tuple[PlacedLink, ...]
    failures: tuple[LinkFailure, ...]
    ignored_records: int
    other_run: int


def read_context(batch: RecordBatch, pins: ContextPins, clock_skew_us: int) -> ContextRecords:
    """Sort the records of a batch. Pure: a record's fate is its own."""
    links: list[PlacedLink] = []
    failures = [
        LinkFailure(record.offset, ApplyFailureReason.MALFORMED_PAYLOAD, "the record is no envelope")
        for record in batch.unreadable
    ]
    ignored_records = 0
    membership = belonging(pins, batch.pins, batch.pins_index, batch.ts, batch.admitted_at, clock_skew_us)
    for index, offset in enumerate(batch.offsets):
        if membership.other_run[index]:
            continue
        if membership.wrong_pins[index]:
            detail = "the run's id with other pins"
            failures.append(LinkFailure(offset, ApplyFailureReason.WRONG_PINS, detail))
        elif membership.future[index]:
            detail = "its event time is later than its admission by more than clock_skew"
            failures.append(LinkFailure(offset, ApplyFailureReason.FUTURE_EVENT, detail))
        elif batch.event_types[index] not in (LINK, UNLINK):
            ignored_records += 1
        else:
            link = _link(batch, index)
            if isinstance(link, LinkFailure):
                failures.append(link)
            else:
                links.append(link)
    return ContextRecords(tuple(links), tuple(failures), ignored_records, int(membership.other_run.sum()))


def _link(batch: RecordBatch, index: int) -> PlacedLink | LinkFailure:
    offset, event_type, event_id = batch.offsets[index], batch.event_types[index], batch.event_ids[index]
    if batch.schema_versions[index] not in FIRST_SCHEMA_VERSIONS:
        detail = f"schema version of {event_type}: known are {', '.join(sorted(FIRST_SCHEMA_VERSIONS))}"
        return LinkFailure(offset, ApplyFailureReason.UNKNOWN_SCHEMA_VERSION, detail)
    if batch.amends[index] is not None:
        detail = f"it amends an event; an {LINK} is taken back by an {UNLINK}"
        return LinkFailure(offset, ApplyFailureReason.AMENDMENT_NOT_DECLARED, detail)
    try:
        payload = IdentityLinkPayload.model_validate(orjson.loads(batch.payloads[index]))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(("payload", *map(str, first["loc"])))
        return LinkFailure(offset, ApplyFailureReason.MALFORMED_PAYLOAD, f"{where}: {first['msg']}")
    head = f"{event_type}\0{event_id}".encode()
    link = LinkEvent(
        payload.key_type.value,
        payload.member,
        payload.canonical,
        parse_time(payload.effective_time_utc),
        sha256(head + b"\0" + batch.payload_hashes[index]).digest(),
        event_type == LINK,
    )
    return PlacedLink(offset, event_id, sha256(head).digest(), int(batch.admitted_at[index]), link)
