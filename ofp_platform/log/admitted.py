"""Records that may be appended: one, and many in columns with the refusals of the rest of their batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from ofp_platform.log.port import AppendReceipt, RecordBatch, RecordRefusal
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.envelope import Envelope
from ofp_platform.vocabulary.identity import ContextPins

Kind = tuple[str, str, bytes]  # event_type, schema_version, the RFC 8785 bytes of the pins


@dataclass(slots=True)
class Admitted:
    """A record that may be appended. Times in microseconds; `payload`, `pins_bytes` and `amends` are RFC 8785 bytes."""

    envelope: Envelope
    ts: int
    emitted_at: int | None
    pins: ContextPins
    pins_bytes: bytes
    payload: bytes
    amends: bytes | None
    payload_hash: bytes
    key: str


@dataclass(slots=True)
class AdmittedColumns:
    """n records in columns: lists of one length. `places` are their indices in the batch of the caller, ascending.

    Times in microseconds; payloads and what amendments amend are RFC 8785 bytes, payload hashes 32 bytes.
    """

    places: list[int] = field(default_factory=list)
    event_ids: list[str] = field(default_factory=list)
    kinds: list[Kind] = field(default_factory=list)
    ts: list[int] = field(default_factory=list)
    emitted_at: list[int | None] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    amends: list[bytes | None] = field(default_factory=list)
    payload_hashes: list[bytes] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.places)

    @classmethod
    def of(cls, batch: RecordBatch) -> AdmittedColumns:
        """The records of a batch as they were admitted; the keys that placed them are not looked for again."""
        pins = [canonical_bytes(run_pins.wire()) for run_pins in batch.pins]
        kinds = zip(batch.event_types, batch.schema_versions, batch.pins_index.tolist(), strict=True)
        return cls(
            list(range(len(batch))),
            batch.event_ids,
            [(event_type, version, pins[index]) for event_type, version, index in kinds],
            batch.ts.tolist(),
            batch.emitted_at,
            batch.payloads,
            batch.amends,
            batch.payload_hashes,
            [""] * len(batch),
        )

    def add(self, place: int, record: Admitted) -> None:
        """One more record at the end."""
        envelope = record.envelope
        self.places.append(place)
        self.event_ids.append(envelope.event_id)
        self.kinds.append((envelope.event_type, envelope.schema_version, record.pins_bytes))
        self.ts.append(record.ts)
        self.emitted_at.append(record.emitted_at)
        self.payloads.append(record.payload)
        self.amends.append(record.amends)
        self.payload_hashes.append(record.payload_hash)
        self.keys.append(record.key)

    def extend(self, others: AdmittedColumns) -> None:
        """More records at the end."""
        for column in fields(self):
            getattr(self, column.name).extend(getattr(others, column.name))

    def take(self, members: Sequence[int]) -> AdmittedColumns:
        """The records at those indices, in that order."""
        return AdmittedColumns(*([values[i] for i in members] for values in (getattr(self, c.name) for c in fields(self))))


@dataclass(slots=True)
class AdmittedBatch:
    """Outcome of `size` records: those admitted, and the refusals of the others, both in the order of the batch.

    `admitted_at` has the time of each admitted record, microseconds; None: the broker's own time.
    """

    size: int
    records: AdmittedColumns
    refusals: list[RecordRefusal]
    admitted_at: list[int] | None

    def receipt(
        self, stream_name: str, placed: Sequence[tuple[str, int | str] | RecordRefusal], incarnation: str | None = None
    ) -> AppendReceipt:
        """The receipt of the whole batch, from what became of each admitted record in the log."""
        outcomes: list[tuple[str, int | str] | RecordRefusal | None] = [None] * self.size
        for refusal in self.refusals:
            outcomes[refusal.index] = refusal
        for place, outcome in zip(self.records.places, placed, strict=True):
            outcomes[place] = outcome
        return AppendReceipt(stream_name, [outcome for outcome in outcomes if outcome is not None], incarnation)
