"""The evidence behind a decision for a portable proof: the snapshot's own bytes, the event, and the events inside its values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ofp_platform.audit.proving import with_evidence
from ofp_platform.audit.tree_heads import AuditRefused
from ofp_platform.vocabulary.canonical import canonical_bytes, jcs_bytes, sha256_hex
from ofp_platform.vocabulary.envelope import Envelope
from ofp_platform.vocabulary.loop.audit import AuditProof, ProvenEvent, ProvenSnapshot
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord
from ofp_platform.vocabulary.position import order

if TYPE_CHECKING:
    from ofp_platform.api.served_snapshot import ServedSnapshot
    from ofp_platform.online.plane import Plane


def proof_of_decision(plane: Plane, proof: AuditProof, *, with_payload: bool, with_events: bool) -> AuditProof:
    """The proof of a decision with its snapshot, its event (with its payload, if asked for), and the events in front of the basis
    that its windowed values are made of.

    Raises:
        AuditRefused: a record of the log is not the event that is named. ContractError: the snapshot is gone or damaged.
        LogError: see there; an event that was trimmed and not archived.
    """
    from ofp_platform.api.served_snapshot import ServedSnapshot

    record = DecisionRecord.model_validate_json(proof.record)
    at = record.event_position
    origin = _event(plane, at.partition_id, at.offset, with_payload=with_payload)
    if (origin.event_type, origin.event_id) != (record.event_type, record.event_id):
        raise AuditRefused(
            f"the log has {origin.event_type} {origin.event_id} at {at.partition_id}:{at.offset}, where the decision's event"
            f" {record.event_id} was: it is another log, or it lost records"
        )
    if record.feature_snapshot_hash is None:
        return with_evidence(proof, None, origin, [])  # it was decided without a vector
    served_snapshot = ServedSnapshot.load(plane, record.feature_snapshot_hash)
    hashed_text = canonical_bytes(served_snapshot.hashed)
    snapshot = ProvenSnapshot(feature_snapshot_hash=sha256_hex(hashed_text), hashed=hashed_text.decode())
    places = sorted(_places(served_snapshot), key=lambda place: (place[0], order(place[1]))) if with_events else []
    events = [_event(plane, partition_id, offset, with_payload=False) for partition_id, offset in places]
    return with_evidence(proof, snapshot, origin, events)


def _places(snapshot: ServedSnapshot) -> set[tuple[str, int | str]]:
    """Partition and offset of each event inside a windowed value."""
    from ofp_platform.offline.parity.explanation import NotExplained

    places: set[tuple[str, int | str]] = set()
    for of_key in snapshot.hashed["values"]:
        for of_group in of_key["by_group"]:
            for feature in of_group["features"]:
                key, group = f"{of_key['key_type']}:{of_key['key_id']}", f"{of_group['group_name']}:{of_group['group_version']}"
                name, _ = snapshot.find(feature, key, group)
                try:
                    windows = snapshot.explained(name)
                except NotExplained:
                    continue  # computed from the others and the request
                places.update((event.partition_id, event.offset) for window in windows for event in window.events)
    return places


def _event(plane: Plane, partition_id: str, offset: int | str, *, with_payload: bool) -> ProvenEvent:
    from ofp_platform.log.port import UnreadableRecord
    from ofp_platform.log.record_lookup import record_at

    record = record_at(plane.archived_log, plane.archive, partition_id, str(offset))
    if isinstance(record, UnreadableRecord):
        raise AuditRefused(f"the record at {partition_id}:{offset} is no envelope any more: {record.message}")
    text = _hashed_text(record.envelope)
    if sha256_hex(text) != record.payload_hash:
        raise AuditRefused(f"the record at {partition_id}:{offset} does not have its payload hash: the log was changed")
    envelope = record.envelope
    return ProvenEvent(
        stream_name=plane.log.stream_name,
        partition_id=partition_id,
        offset=offset,
        event_id=envelope.event_id,
        event_type=envelope.event_type,
        ts_utc=envelope.ts_utc,
        payload_hash=record.payload_hash,
        envelope=text.decode() if with_payload else None,
    )


def _hashed_text(envelope: Envelope) -> bytes:
    """The RFC 8785 bytes that a payload hash is over."""
    members: dict[str, Any] = {
        "event_type": envelope.event_type,
        "payload": envelope.payload,
        "pins": envelope.pins().wire(),
        "schema_version": envelope.schema_version,
        "ts_utc": envelope.ts_utc,
    }
    if envelope.amends is not None:
        members["amends"] = envelope.amends.model_dump(mode="json")
    return jcs_bytes(members)
