"""Cases over HTTP, of the run that is served: the queue, one case, and what an investigator adds to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from ofp_platform.api.bounded_work import BoundedWork, WorkBounds
from ofp_platform.api.record_requests import demand_words, read_model
from ofp_platform.api.service import MayRead
from ofp_platform.cases.case_desk import CaseDesk, CaseNotFound, CaseNotNow, EntryConflict
from ofp_platform.offline.labels.label_intake import LabelIntake, classes_of
from ofp_platform.offline.labels.label_store import LabelStore
from ofp_platform.registry.models import Pack
from ofp_platform.storage.case_entries import QUEUE_START, QueuePlace
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.errors import Reason, invalid, not_found
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.case import ActionRequested, CaseEvent, Closed, NoSuchLabel, Note, Reopened
from ofp_platform.vocabulary.loop.case_requests import CaseEntryAsk, CaseList, CaseReceipt, CaseTriggerAsk, LabelAsk
from ofp_platform.vocabulary.loop.case_standing import CaseState
from ofp_platform.vocabulary.model import is_digest

_DOWN = "the store of cases does not answer; the same request may be sent again, and is done once"
_UNKNOWN = "no case of this run has this id; GET /v0/cases lists them"
_SEPARATOR = "~"
T = TypeVar("T")


def _now() -> int:
    return time.time_ns() // 1_000


class CaseRequests:
    """A CasePort over one database, for the run with these pins. `pack`: the pack whose events cases are about; `now`:
    microseconds since the epoch."""

    def __init__(
        self,
        dsn: str,
        pins: ContextPins,
        pack: Callable[[], Pack],
        bounds: WorkBounds | None = None,
        now: Callable[[], int] = _now,
    ) -> None:
        self._pins = pins
        self._pack = pack
        self._now = now
        self.work = BoundedWork(dsn, _DOWN, "cases", bounds)

    async def cases(self, state: CaseState, limit: int, cursor: str | None) -> bytes:
        """See CasePort."""
        behind = QUEUE_START if cursor is None else _place(cursor)

        def read() -> bytes:
            page = self._desk().cases(state, limit, behind)
            next_cursor = None if page.behind is None else _SEPARATOR.join(map(str, page.behind))
            listed = CaseList(state=state, cases=page.cases, conflicts=page.conflicts, next_cursor=next_cursor)
            return listed.model_dump_json().encode()

        return await self.work.answer(read, 0)

    async def case(self, case_id: str, may_read: MayRead) -> bytes:
        """See CasePort."""
        self._demand_known(may_read)
        return await self.work.answer(lambda: _told(lambda: canonical_bytes(self._desk().case(case_id).wire())), 0)

    async def trigger(self, body: bytes, actor: str, may_read: MayRead) -> bytes:
        """See CasePort."""
        ask = read_model(CaseTriggerAsk, body)
        self._demand_run(ask.context_pins, may_read)
        demand_words("reason", ask.reason)

        def append() -> bytes:
            classes = classes_of(self._pack().events)
            if ask.event_class not in classes:
                words = f"the pack has events of the classes {', '.join(classes)}"
                raise invalid(Reason.INVALID_FIELD, f"event_class: {words}")
            event = CaseEvent(event_class=ask.event_class, event_id=ask.event_id)
            return _receipt(lambda: self._desk().trigger(event, ask.trigger, ask.source_ref, ask.reason, actor))

        return await self.work.answer(append, len(body))

    async def add(self, case_id: str, body: bytes, actor: str, may_read: MayRead) -> bytes:
        """See CasePort."""
        ask = read_model(CaseEntryAsk, body)
        self._demand_run(ask.context_pins, may_read)
        match ask.content:
            case Note(text=text):
                demand_words("content.text", text)
            case ActionRequested(reason=reason) | Closed(reason=reason) | Reopened(reason=reason):
                demand_words("content.reason", reason)

        def append() -> bytes:
            desk, content = self._desk(), ask.content
            if isinstance(content, LabelAsk):
                label = content
                return _receipt(lambda: desk.assert_label(case_id, label, ask.source_ref, actor))
            entry = content
            return _receipt(lambda: desk.add(case_id, entry, ask.source_ref, actor))

        return await self.work.answer(append, len(body))

    async def close(self) -> None:
        """Wait for what is under way, and disconnect."""
        await self.work.close()

    def _desk(self) -> CaseDesk:
        pool = self.work.pool()
        return CaseDesk(pool, self._pins, LabelIntake(LabelStore(pool, self._pins), self._pack().events), self._now)

    def _demand_known(self, may_read: MayRead) -> None:
        if not may_read(self._pins):  # whether there is one, is not told either
            raise not_found(Reason.UNKNOWN_CASE, _UNKNOWN)

    def _demand_run(self, pins: ContextPins, may_read: MayRead) -> None:
        if pins != self._pins or not may_read(pins):
            raise not_found(Reason.UNKNOWN_RUN, f"run {pins.run_id} with these pins is not known here", pins)


def _receipt(append: Callable[[], CaseReceipt]) -> bytes:
    return _told(lambda: canonical_bytes(append().wire()))


def _told(work: Callable[[], T]) -> T:
    """The outcome of some work, its refusals as those of the contract."""
    try:
        return work()
    except CaseNotFound:
        raise not_found(Reason.UNKNOWN_CASE, _UNKNOWN) from None
    except EntryConflict:
        words = "an entry of this type and source_ref is in the case with other content; the first stands, both digests are kept"
        raise invalid(Reason.CASE_ENTRY_CONFLICT, words) from None
    except CaseNotNow as error:
        raise invalid(Reason.CASE_NOT_NOW, str(error)) from None
    except NoSuchLabel as error:
        raise invalid(Reason.INVALID_FIELD, f"content: {error}") from None


def _place(cursor: str) -> QueuePlace:
    match cursor.split(_SEPARATOR):
        case [priority, opened_us, case_id] if _is_number(priority) and _is_number(opened_us) and is_digest(case_id):
            return QueuePlace(int(priority), int(opened_us), case_id)
    raise invalid(Reason.INVALID_FIELD, "cursor is the next_cursor of a list")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 16
