"""A record in quarantine, sent through the door again by an operator, with a reason that stays."""

from __future__ import annotations

from ofp_platform.ingress.batches import BatchReceipt
from ofp_platform.ingress.door import Door
from ofp_platform.ingress.receipts import QuarantinedRecord, kept_record
from ofp_platform.log.governance_log import append_facts_with
from ofp_platform.vocabulary.admission_receipt import QuarantineReason
from ofp_platform.vocabulary.offline.governance_fact import QuarantineReplayed

_REPLAYED = "INSERT INTO ofp.quarantine_replay (quarantine_id, batch_id, place) VALUES (%s, %s, 0)"


def replay_record(door: Door, record: QuarantinedRecord, actor: str, reason: str, at_utc: str) -> BatchReceipt:
    """Send a record again, as it was sent; the receipt that it gets, which may set it aside again. A governance fact says so.

    Cut off behind the admission, it is sent once more and is a DUPLICATE then.

    Raises:
        UnknownReceipt: the record is kept nowhere, or not whole.
        LogUnavailable | ObjectStoreUnavailable: nothing is known; send it again.
    """
    receipt = door.admit([kept_record(door.objects, record)], f"quarantine/{record.quarantine_id}")
    fact = QuarantineReplayed(
        stream_name=door.traffic.stream_name,
        context_pins=door.gate.pins,
        quarantine_id=record.quarantine_id,
        set_aside_for=QuarantineReason(record.reason),
        batch_id=receipt.batch_id,
        outcome=receipt.outcomes[0].outcome,
        actor=actor,
        reason=reason,
        at_utc=at_utc,
    )
    with door.pool.connection() as connection, connection.transaction():
        connection.execute(_REPLAYED, (record.quarantine_id, receipt.batch_id))
        append_facts_with(connection, [fact])
    return receipt
