"""Decisions and labels that others send over HTTP, and decisions as they are recorded, of the run that is served.

A decision is taken as it stands, once its snapshot says the same: question, basis and pack of the two are one. So it is an anchor
of parity like one of our own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import orjson
from pydantic import ValidationError

from ofp_platform.api.bounded_work import BoundedWork, WorkBounds
from ofp_platform.api.service import MayRead
from ofp_platform.offline.labels.label_intake import classes_of
from ofp_platform.offline.labels.label_store import LabelStore
from ofp_platform.registry.models import Pack
from ofp_platform.storage.decision_records import (
    DecisionConflict,
    DecisionFilter,
    StoredDecision,
    append_decisions,
    list_decisions,
    stored_decision,
)
from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid, not_found, unavailable
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.json_text import NotIJson, NotJson, holds_nul, read_json
from ofp_platform.vocabulary.loop.decision_record import DecisionReceipt, DecisionRecord
from ofp_platform.vocabulary.model import Model
from ofp_platform.vocabulary.offline.build_refusal import BuildRefused
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertions, LabelReceipt
from ofp_platform.vocabulary.raw_identifier import raw_identifier_in, redact
from ofp_platform.vocabulary.yaml_file import fault_message

_DOWN = "the store of decisions and labels does not answer; the same request may be sent again, and is recorded once"
_SHARED = (
    "context_pins",
    "feature_keys",
    "feature_groups",
    "as_of_time_utc",
    "run_config_digest",
    "input_basis",
    "graph_version",
    "request_context",
)
"""Fields that a decision record has in common with what the hash of its snapshot is over, under the same name."""
M = TypeVar("M", bound=Model)
SnapshotPort = Callable[[str, MayRead], Awaitable[bytes]]


def read_model(model: type[M], body: bytes) -> M:
    """The object of a contract in a body.

    Raises:
        ContractError: MALFORMED_JSON; MISSING_FIELD; RAW_IDENTIFIER; INVALID_FIELD. No value is told.
    """
    try:
        value = read_json(body)
    except (NotJson, NotIJson) as error:
        raise invalid(Reason.MALFORMED_JSON, f"the body: {error}") from None
    if rb"\u0000" in body and holds_nul(value):
        raise invalid(Reason.INVALID_FIELD, "a text holds U+0000, which cannot be stored: send it without")
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = redact(".".join(map(str, first["loc"])) or "the whole")
        if first["type"] == "missing":
            raise invalid(Reason.MISSING_FIELD, f"{field}: is missing" if first["loc"] else fault_message(first)) from None
        reason = Reason.RAW_IDENTIFIER if "raw identifier" in first["msg"] else Reason.INVALID_FIELD
        raise invalid(reason, f"{field}: {fault_message(first)}") from None


def demand_words(field: str, text: str) -> None:
    """Raises: ContractError: INVALID_FIELD, the text is blank. What is on record already is read as it is."""
    if not text.strip():
        raise invalid(Reason.INVALID_FIELD, f"{field}: is blank: it is kept for good, so say something")


def check_snapshot(record: DecisionRecord, stored: bytes) -> None:
    """Hold a decision against the verified record of the snapshot that it names.

    Raises:
        ContractError: DECISION_MISMATCH, which names the first field that differs.
    """
    vector = record.vector
    assert vector is not None  # of v0
    hashed_part, wire = orjson.loads(stored)["hashed"], record.wire()
    differing = [name for name in _SHARED if wire.get(name) != hashed_part.get(name)]
    if vector.feature_definition_set.digest != hashed_part["registry_digest"]:
        differing.append("feature_definition_set.digest")
    if differing:
        raise _mismatch(differing[0], "is not that of the snapshot under feature_snapshot_hash")
    if not vector.input_basis.contains(record.event_position):
        raise _mismatch("event_position", "does not lie in input_basis: the snapshot did not know the event")


def _mismatch(field: str, words: str) -> ContractError:
    return invalid(Reason.DECISION_MISMATCH, f"{field}: {words}")


def _unknown() -> ContractError:
    return not_found(Reason.UNKNOWN_DECISION, "no decision has this id")


class RecordRequests:
    """A RecordPort over one database, for the run with these pins. `snapshots` gives the verified record of a hash; `pack`, the
    pack whose events labels are about."""

    def __init__(
        self,
        dsn: str,
        pins: ContextPins,
        snapshots: SnapshotPort,
        pack: Callable[[], Pack],
        bounds: WorkBounds | None = None,
    ) -> None:
        self._pins = pins
        self._snapshots = snapshots
        self._pack = pack
        self.work = BoundedWork(dsn, _DOWN, "decisions and labels", bounds)

    async def record(self, body: bytes, submitted_by: str, may_read: MayRead) -> DecisionReceipt:
        """See RecordPort."""
        record = read_model(DecisionRecord, body)
        self._demand_run(record.context_pins, may_read)
        snapshot_hash = record.feature_snapshot_hash
        if record.contract_version != "v0" or snapshot_hash is None:
            raise invalid(Reason.INVALID_FIELD, "contract_version: v1 is of decisions that the plane makes itself; send v0")
        texts = {"event_id": record.event_id, "request_context": record.request_context}
        for field, value in texts.items():
            if raw_identifier_in(value) is not None:
                raise invalid(Reason.RAW_IDENTIFIER, f"{field}: a raw identifier is never recorded; send the entity id")
        content = canonical_bytes(record.wire())
        # one that is recorded is answered as before, also when its snapshot is gone by then
        answer = await self.work.answer(lambda: self._receipt(record, content), len(body))
        if not answer:
            check_snapshot(record, await self._snapshots(snapshot_hash, may_read))
            answer = await self.work.answer(lambda: self._append(record, content, submitted_by), len(body))
        return DecisionReceipt.model_validate_json(answer)

    async def decision(self, decision_id: str, may_read: MayRead) -> bytes:
        """See RecordPort."""
        return await self.work.answer(lambda: self._show(decision_id, may_read), len(decision_id))

    async def decisions(self, chosen: DecisionFilter, limit: int, cursor: str | None, may_read: MayRead) -> bytes:
        """See RecordPort."""
        if not may_read(self._pins):  # which run it is, is not told either
            raise not_found(Reason.UNKNOWN_RUN, "no run that you may read is served here")
        return await self.work.answer(lambda: self._list(chosen, limit, cursor), 0)

    async def append_labels(self, body: bytes, submitted_by: str, may_read: MayRead) -> bytes:
        """See RecordPort."""
        labels = read_model(LabelAssertions, body)
        self._demand_run(labels.context_pins, may_read)
        return await self.work.answer(lambda: self._append_labels(labels, submitted_by), len(body))

    async def close(self) -> None:
        """Wait for what is under way, and disconnect."""
        await self.work.close()

    def _demand_run(self, pins: ContextPins, may_read: MayRead) -> None:
        if pins != self._pins or not may_read(pins):
            raise not_found(Reason.UNKNOWN_RUN, f"run {pins.run_id} with these pins is not known here", pins)

    def _receipt(self, record: DecisionRecord, content: bytes) -> bytes:
        """The receipt of a decision that is recorded; empty: it is not."""
        with self.work.pool().connection() as connection:
            stored_record = stored_decision(connection, record.decision_id)
        if stored_record is None:
            return b""
        if stored_record.content.encode() != content:
            raise _conflict(record.decision_id)
        receipt = DecisionReceipt(
            decision_id=record.decision_id, record_digest=sha256_hex(content), submitted_by=stored_record.submitted_by
        )
        return receipt.model_dump_json().encode()

    def _append(self, record: DecisionRecord, content: bytes, submitted_by: str) -> bytes:
        try:
            with self.work.pool().connection() as connection:
                append_decisions(connection, [record], submitted_by)
        except DecisionConflict:
            raise _conflict(record.decision_id) from None
        return self._receipt(record, content)

    def _show(self, decision_id: str, may_read: MayRead) -> bytes:
        if not may_read(self._pins):
            raise _unknown()
        with self.work.pool().connection() as connection:
            stored_record = stored_decision(connection, decision_id, self._pins)
        if stored_record is None:
            raise _unknown()
        return _whole(stored_record, decision_id)

    def _list(self, chosen: DecisionFilter, limit: int, cursor: str | None) -> bytes:
        with self.work.pool().connection() as connection:
            rows = list_decisions(connection, self._pins, chosen, limit + 1, cursor)
        page = rows[:limit]
        contents = [_whole(StoredDecision(content, None), place.rpartition("~")[2]) for place, content in page]
        next_cursor = page[-1][0] if len(rows) > limit else None
        head = {"kind": "df_decision_list", "contract_version": "v0", "next_cursor": next_cursor}
        return orjson.dumps({**head, "decisions": [orjson.Fragment(content) for content in contents]})

    def _append_labels(self, labels: LabelAssertions, submitted_by: str) -> bytes:
        classes = classes_of(self._pack().events)
        for index, assertion in enumerate(labels.assertions):
            if assertion.event_class not in classes:
                words = f"the pack has events of the classes {', '.join(classes)}"
                raise invalid(Reason.INVALID_FIELD, f"assertions.{index}.event_class: {words}")
        try:
            receipt = LabelStore(self.work.pool(), labels.context_pins).append(labels.assertions, submitted_by=submitted_by)
        except BuildRefused:
            raise unavailable(Reason.STORE_DOWN, _DOWN) from None
        return LabelReceipt(new_count=receipt.new_count, known_count=receipt.known_count).model_dump_json().encode()


def _conflict(decision_id: str) -> ContractError:
    words = f"decision {decision_id} is recorded with other content; what was decided is never decided again"
    return invalid(Reason.DECISION_CONFLICT, words)


def _whole(stored: StoredDecision, decision_id: str) -> bytes:
    """The stored bytes, if they are a decision of that id."""
    try:
        is_named = DecisionRecord.model_validate_json(stored.content).decision_id == decision_id
    except ValueError:
        is_named = False
    if not is_named:
        raise unavailable(Reason.DECISION_CORRUPT, f"the stored bytes of decision {decision_id} are damaged")
    return stored.content.encode()
