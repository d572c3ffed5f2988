"""Batches as producers send them and as they are answered, and what a batch must be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from ofp_platform.ingress.gate import Passed, Sent, SetAside
from ofp_platform.ingress.receipt_block import RecordOutcome
from ofp_platform.vocabulary.admission_receipt import AdmissionOutcome
from ofp_platform.vocabulary.model import IDENTIFIER_PATTERN
from ofp_platform.vocabulary.raw_identifier import holds_raw_identifier

MOST_RECORDS = 10_000
"""Of one batch."""
_NAME = re.compile(IDENTIFIER_PATTERN, re.ASCII)


class IngressRefused(Exception):
    """A batch cannot be admitted as a whole; the text says why. Nothing of it was."""


class KeyReused(IngressRefused):
    """Another batch came under the same idempotency key of the same producer."""


class NotTogether(Exception):
    """Two batches of a group must be admitted one after the other."""


@dataclass(frozen=True)
class IdempotencyKey:
    """A producer's name for a batch, and the SHA-256 (32 bytes) of what it sent: sent again, it is answered as before."""

    key: str
    request_digest: bytes


@dataclass(frozen=True)
class SentBatch:
    """A batch as a producer sent it; see `Door.admit`. `verdicts`: of the gate, where it was asked before; `traceparent`: the
    trace that the producer sent it in, for spans alone.
    """

    records_sent: Sequence[Sent]
    producer: str
    admitted_at: Sequence[int] | None = None
    idempotency_key: IdempotencyKey | None = None
    verdicts: Sequence[Passed | SetAside] | None = None
    traceparent: str | None = None


@dataclass(frozen=True)
class BatchReceipt:
    """The receipt of a batch: how its records ended, in their order. `repeated`: it came before, under the same key."""

    batch_id: int
    outcomes: tuple[RecordOutcome, ...]
    repeated: bool = False

    def count(self, outcome: AdmissionOutcome) -> int:
        """How many ended so."""
        return sum(ended.outcome is outcome for ended in self.outcomes)


def demand_batch(batch: SentBatch) -> None:
    """Refuse a batch that is none.

    Raises:
        IngressRefused: no record, too many, not one time for each, or a producer without a name.
    """
    count = len(batch.records_sent)
    if not 1 <= count <= MOST_RECORDS:
        raise IngressRefused(f"a batch has from 1 to {MOST_RECORDS:,} records, and this one has {count:,}")
    if _NAME.fullmatch(batch.producer) is None or holds_raw_identifier(batch.producer):
        raise IngressRefused("a producer's name has 1 to 128 of A-Z a-z 0-9 _ . : / -, the first a letter or digit")
    if batch.admitted_at is not None and len(batch.admitted_at) != count:
        raise IngressRefused(f"{len(batch.admitted_at):,} times of admission for {count:,} records")


def demand_together(batches: Sequence[SentBatch]) -> None:
    """Refuse a group in which one batch comes twice, or some have declared times and others not.

    Raises:
        NotTogether: it is one.
    """
    names = [(batch.producer, batch.idempotency_key.key) for batch in batches if batch.idempotency_key is not None]
    if len(set(names)) < len(names) or len({batch.admitted_at is None for batch in batches}) > 1:
        raise NotTogether


def begins(batches: Sequence[SentBatch]) -> list[int]:
    """Where the records of each batch begin among those of all."""
    return [0, *accumulate(len(batch.records_sent) for batch in batches)][:-1]


def declared_times(batches: Sequence[SentBatch]) -> list[int] | None:
    """The declared times of admission of all records; None where a batch declares none."""
    if any(batch.admitted_at is None for batch in batches):
        return None
    return [moment for batch in batches for moment in batch.admitted_at or ()]
