"""Ingress behind HTTP: the door of a profile's run, opened when it is first needed; batches in few threads; health."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import orjson
import psycopg

from ofp_platform.api.bounded_work import BoundedWork
from ofp_platform.api.decision_waits import DecisionWaits
from ofp_platform.ingress.batches import BatchReceipt, IdempotencyKey, KeyReused, SentBatch
from ofp_platform.ingress.class_map import class_map_in_force
from ofp_platform.ingress.door import Door
from ofp_platform.ingress.gate import Sent
from ofp_platform.ingress.open_door import open_door
from ofp_platform.ingress.publish_rows import PublishUnsettled
from ofp_platform.ingress.receipt_block import receipt_fields
from ofp_platform.log.group_commit import GroupCommit
from ofp_platform.log.port import LogTailLost, LogUnavailable, LogUnsettled
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.online.plane import Plane, profile_pack
from ofp_platform.storage.decision_records import active_decisions
from ofp_platform.storage.objects import ObjectStoreUnavailable
from ofp_platform.storage.postgres import DatabaseUnavailable
from ofp_platform.storage.run_asks import TooManyAsks, add_ask, read_ask
from ofp_platform.storage.transient import is_transient
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid, not_found, unavailable
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.scenario import RunAsk, RunAskAnswer

_SAME_WORD = {reason.value: reason for reason in (Reason.INVALID_TIME, Reason.RAW_IDENTIFIER)}
_DOWN = "the log, or the database in which receipts are kept, does not answer; send the batch again, as it is"
_HEALTH_SECONDS = 1.0
_OUTAGES = (LogUnavailable, LogTailLost, ObjectStoreUnavailable, DatabaseUnavailable)
_CONNECTIONS = 8
_WRITERS, _SMALL_BYTES = 2, 32_000
_MOST_AT_ONCE = 16
"""Batches that threads hold at once: those that come while others are committed are committed together (`GroupCommit`)."""


@dataclass
class Allowance:
    """Records that each producer may send: `rate` a second, and what it saved up in two seconds. `clock` gives seconds."""

    rate: float
    clock: Callable[[], float] = time.monotonic
    _saved: dict[str, tuple[float, float]] = field(default_factory=dict)

    def take(self, producer: str, records: int) -> None:
        """Take so many; a batch that is larger than all that can be saved takes everything.

        Raises:
            ContractError: UNAVAILABLE / RATE_EXCEEDED: so many are not saved up.
        """
        if not self.rate:
            return
        most, now = 2 * self.rate, self.clock()
        saved, since = self._saved.get(producer, (most, now))
        saved = min(most, saved + (now - since) * self.rate)
        wanted = min(records, most)
        if saved < wanted:
            self._saved[producer] = saved, now
            text = f"more than {self.rate:g} records a second of this producer; send it again later"
            raise unavailable(Reason.RATE_EXCEEDED, text)
        self._saved[producer] = saved - wanted, now


class IngressService:
    """The door of a profile's run, for an HTTP application."""

    def __init__(self, profile: Profile, dsn: str) -> None:
        self._profile = profile
        self._dsn = dsn
        self._work = BoundedWork(dsn, _DOWN, "batches of events", most_at_once=_MOST_AT_ONCE)
        self._opening = threading.Lock()
        self._plane: Plane | None = None
        self._door: Door | None = None
        self._together: GroupCommit[SentBatch, BatchReceipt] | None = None
        self._decisions = DecisionWaits(self._decisions_stream, self._decisions_on, _wait_words)
        self._health: tuple[float, list[str]] = (float("-inf"), [])

    @property
    def pins(self) -> ContextPins:
        """The run that is admitted for."""
        return self._profile.context_pins

    async def admit(
        self,
        records: Sequence[Sent],
        producer: str,
        key: IdempotencyKey | None,
        size: int,
        traceparent: str | None = None,
    ) -> bytes:
        """The answer to a batch, `admission_answer` as JSON. `size`: of what was sent, bytes; `traceparent`: see SentBatch.

        Raises:
            ContractError: STORE_DOWN, LOG_TAIL_LOST, PUBLISH_AMBIGUOUS, OVERLOADED: nothing is known of the batch;
                IDEMPOTENCY_CONFLICT.
        """
        batch = SentBatch(records, producer, idempotency_key=key, traceparent=traceparent)
        return await self._work.answer(lambda: self._admitted(batch, size), size)

    def _admitted(self, batch: SentBatch, size: int) -> bytes:
        try:
            door, together = self._opened()
            receipt = together.write(door.examine(batch), size)
            return answer_text(receipt, self.pins, door.streams)
        except KeyReused as error:
            raise invalid(Reason.IDEMPOTENCY_CONFLICT, str(error), self.pins) from None
        except _OUTAGES as error:
            raise _outage(error) from error

    async def decide(self, record: Sent, producer: str, size: int, traceparent: str | None = None) -> bytes:
        """The decision on an event that is admitted here, or was: `df_decision_record` v1 as JSON, the ACTIVE slot's.

        Raises:
            ContractError: UNKNOWN_PATH: the plane decides on nothing; INVALID_FIELD and others: the event is none that it decides
                on, or was set aside; DECISION_PENDING: it is admitted, and not decided on in time; as `admit`.
        """
        deciding = self._profile.deciding
        if deciding is None:
            raise not_found(
                Reason.UNKNOWN_PATH, "the plane decides on nothing here: its profile declares no `deciding`", self.pins
            )
        if isinstance(record, dict):
            if record.get("event_type") != deciding.event_type:
                raise invalid(Reason.INVALID_FIELD, f"event_type: the plane decides on {deciding.event_type} alone", self.pins)
            if "amends" in record:
                raise invalid(Reason.INVALID_FIELD, "amends: an amendment is not decided on; POST /v0/events takes it", self.pins)
        answer = orjson.loads(await self.admit([record], producer, None, size, traceparent))
        receipt = answer["receipts"][0]
        if "reason" in receipt:
            words = f"the event is set aside: {receipt['reason']}, {receipt.get('detail', 'see its receipt')}"
            raise invalid(_SAME_WORD.get(receipt["reason"], Reason.INVALID_FIELD), words, self.pins)
        return await self._decisions.decision_on(receipt["event_id"])

    def _decisions_stream(self) -> PostgresLog:
        return self._opened_plane().decisions_log(create=True)

    def _decisions_on(self, event_ids: Sequence[str]) -> dict[str, bytes]:
        assert self._profile.deciding is not None  # or nobody would wait
        with self._opened_plane().pool.connection() as connection:
            decisions = active_decisions(connection, self.pins, self._profile.deciding.event_type, event_ids)
        return {event_id: text.encode() for event_id, text in decisions.items()}

    async def ask_for_run(self, ask: RunAsk, actor: str) -> RunAskAnswer:
        """Append an ask for the run; a runner answers it.

        Raises:
            ContractError: STORE_DOWN, OVERLOADED; UNKNOWN_RUN: the profile names no stream of control.
        """
        if self._profile.control_stream is None:
            raise not_found(
                Reason.UNKNOWN_RUN, "the run of this door needs no READY: its profile names no control_stream", self.pins
            )

        def add() -> bytes:
            try:
                with self._opened_plane().pool.connection() as connection:
                    return b"%d" % add_ask(connection, self.pins, ask, actor)
            except TooManyAsks as error:
                raise unavailable(Reason.OVERLOADED, str(error)) from None
            except _OUTAGES as error:
                raise _outage(error) from error

        ask_id = int(await self._work.answer(add, 0))
        return RunAskAnswer(context_pins=self.pins, ask_id=ask_id, ask=ask, actor=actor, state="PENDING")

    async def asked_run(self, ask_id: int) -> bytes:
        """Where an ask stands, `run_ask_answer` as JSON.

        Raises:
            ContractError: STORE_DOWN, OVERLOADED; UNKNOWN_RUN: there is no such ask.
        """

        def read() -> bytes:
            try:
                with self._opened_plane().pool.connection() as connection:
                    answer = read_ask(connection, self.pins, ask_id)
            except _OUTAGES as error:
                raise _outage(error) from error
            if answer is None:
                raise not_found(Reason.UNKNOWN_RUN, "no such ask for this run", self.pins)
            return orjson.dumps(answer.wire())

        return await self._work.answer(read, 0)

    async def reasons(self) -> list[str]:
        """Why it cannot admit anything now; none, and it can. Looked at once a second at most."""
        looked_at, reasons = self._health
        if time.monotonic() - looked_at < _HEALTH_SECONDS:
            return reasons
        try:
            await self._work.answer(self._look, 0)
            reasons = []
        except ContractError as error:
            reasons = [error.reason.value]
        self._health = time.monotonic(), reasons
        return reasons

    def _look(self) -> bytes:
        try:
            door = self._opened()[0]
            door.traffic.demand_settled()
            door.settle()
        except _OUTAGES as error:
            raise _outage(error) from error
        return b""

    def _opened(self) -> tuple[Door, GroupCommit[SentBatch, BatchReceipt]]:
        with self._opening:
            if self._door is None:
                plane = self._plane_under_lock()
                context = None if self._profile.context_stream is None else plane.context_log(create=True)
                class_map = class_map_in_force(self._profile, profile_pack(self._profile))
                needs_ready = self._profile.control_stream is not None
                self._door = open_door(
                    plane.pool, plane.log, context, plane.objects, self.pins, class_map, needs_ready=needs_ready
                )
                self._together = GroupCommit(self._door.admit_group, _WRITERS, _SMALL_BYTES)
            assert self._together is not None
            return self._door, self._together

    def _opened_plane(self) -> Plane:
        with self._opening:
            return self._plane_under_lock()

    def _plane_under_lock(self) -> Plane:
        if self._plane is None:
            self._plane = Plane.open(self._profile, self._dsn, max_connections=_CONNECTIONS)
        return self._plane

    async def close(self) -> None:
        """Finish what is under way, and disconnect."""
        await self._decisions.close()
        await self._work.close()
        if self._plane is not None:
            await asyncio.to_thread(self._plane.close)


def answer_text(receipt: BatchReceipt, pins: ContextPins, streams: tuple[str, str | None]) -> bytes:
    """`admission_answer` as JSON."""
    return orjson.dumps(
        {
            "kind": "admission_answer",
            "contract_version": "v0",
            "context_pins": pins.wire(),
            "batch_id": receipt.batch_id,
            "repeated": receipt.repeated,
            "receipts": [receipt_fields(place, outcome, streams) for place, outcome in enumerate(receipt.outcomes)],
        }
    )


def _outage(error: Exception) -> ContractError:
    if isinstance(error, LogTailLost | LogUnsettled):
        return unavailable(Reason.LOG_TAIL_LOST, "the log is not settled after a recovery; send the batch again, as it is")
    if isinstance(error, PublishUnsettled):
        return unavailable(Reason.PUBLISH_AMBIGUOUS, f"{error}; send the batch again, as it is")
    return unavailable(Reason.STORE_DOWN, _DOWN)


def _wait_words(error: Exception) -> ContractError:
    if isinstance(error, ContractError):
        return error
    if isinstance(error, _OUTAGES) or (isinstance(error, psycopg.Error) and is_transient(error)):
        return _outage(error)
    raise error
