"""The load: producers that hold a receipt for each record, readers that hold each answer, a decider, a poll of health.

Nobody of them is restarted. Each counts what was refused, and keeps what must not have happened.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import orjson
import psycopg
from psycopg_pool import PoolTimeout

from ofp_platform.client import AnswerNotTrusted, OfpClient, RetryPolicy, ServiceUnreachable, make_request, verify
from ofp_platform.decisions.decision_point import CARD_PAYMENTS
from ofp_platform.decisions.event_reader import ReadEvent
from ofp_platform.decisions.recorder import record_of
from ofp_platform.log.port import EventLog, LogUnavailable, RecordRefusal, RefusalReason
from ofp_platform.online.projecting.continuous import is_transient
from ofp_platform.simulation.deliveries import Deliveries
from ofp_platform.storage.postgres import DatabaseUnavailable
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import Basis, Position
from ofp_platform.vocabulary.times import format_time
from ofp_platform_tests.torture.faults.oracle import Question
from ofp_platform_tests.torture.faults.periods import Worker

ANSWER_SECONDS = 10.0
"""A request has its answer by then, whatever is away: the service gives a store up sooner, and the rest is slack."""
BATCH = 10
_PASSING = (LogUnavailable, DatabaseUnavailable, PoolTimeout, psycopg.OperationalError)
_DEFECTS = ("INTERNAL", "SNAPSHOT_CORRUPT", "DECISION_CORRUPT", "BASIS_LOST", "UNKNOWN_SNAPSHOT")


@dataclass
class Told:
    """What the load was told, since it began. Lists grow only, so others may read them meanwhile.

    receipts: where the log says that a record stands. in_doubt: records whose append was refused as LOG_UNAVAILABLE, and which
    may stand in the log besides. served: question, basis and hash of each answer; decided: the ids of decisions with a receipt.
    postures: moment (time.monotonic), state and reasons, as health told them. wrong: what must not have happened, in words.
    """

    receipts: list[tuple[Position, int]] = field(default_factory=list)
    in_doubt: Counter[str] = field(default_factory=Counter)
    served: list[tuple[int, Basis, str]] = field(default_factory=list)
    decided: list[str] = field(default_factory=list)
    postures: list[tuple[float, str, tuple[str, ...]]] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    longest_seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


class Load:
    """Two producers, readers, a decider and a poll of health, each a thread of its own."""

    def __init__(
        self,
        open_log: Callable[[], EventLog],
        deliveries: Deliveries,
        questions: Sequence[Question],
        pins: ContextPins,
        address: str,
        key: str,
        seed: int,
        *,
        readers: int,
        pace_seconds: float,
    ) -> None:
        self.told = Told()
        self.sent = 0
        self._open_log = open_log
        self._deliveries = deliveries
        self._questions = questions
        self._pins = pins
        self._address = address
        self._key = key
        self._pace = pace_seconds
        self._stop = threading.Event()
        self._take = threading.Lock()
        self._goes_on = threading.Event()
        self._goes_on.set()
        actions: dict[str, Callable[[str], None]] = {"producer 1": self._produce, "producer 2": self._produce}
        actions |= {f"reader {number}": partial(self._read, random.Random(seed + number)) for number in range(readers)}
        actions["decider"] = partial(self._decide, random.Random(seed - 1))
        self._idle = dict.fromkeys(actions, False)
        works: list[tuple[str, Callable[[], None]]] = [(name, partial(action, name)) for name, action in actions.items()]
        self._works = [*works, ("health", self._poll)]
        self._workers: list[Worker] = []

    def start(self) -> None:
        """Begin."""
        self._workers = [Worker(action, name) for name, action in self._works]

    def stop(self, seconds: float) -> list[str]:
        """Let each finish what it has under way; who did not, or failed, in words."""
        self._stop.set()
        self._goes_on.set()
        deadline = time.monotonic() + seconds
        found = []
        for (name, _), worker in zip(self._works, self._workers, strict=True):
            if not worker.join(deadline - time.monotonic()):
                found.append(f"{name} hangs")
            elif worker.error is not None:
                found.append(f"{name}: {worker.error!r}")
        return found

    def pause(self) -> None:
        """Return when nothing is under way but polls of health; nothing more is begun until `resume`."""
        self._goes_on.clear()
        deadline = time.monotonic() + 4 * ANSWER_SECONDS
        while not all(self._idle.values()) and not self.failures() and time.monotonic() < deadline:
            time.sleep(0.02)

    def resume(self) -> None:
        """Go on."""
        self._goes_on.set()

    def _may_go_on(self, name: str) -> bool:
        """Whether to begin something more; returns when that is known."""
        self._idle[name] = True
        self._goes_on.wait()
        self._idle[name] = False
        return not self._stop.is_set()

    def failures(self) -> list[str]:
        """Workers that ended before their time."""
        pairs = zip(self._works, self._workers, strict=True)
        return [f"{name} ended: {worker.error!r}" for (name, _), worker in pairs if worker.done and not self._stop.is_set()]

    def client(self) -> OfpClient:
        """A client that asks once."""
        return OfpClient(self._address, token=self._key, timeout_seconds=ANSWER_SECONDS, retries=RetryPolicy(attempts=1))

    # ------------------------------------------------------------------------------------------ producers

    def _produce(self, name: str) -> None:
        log = self._open_log()
        try:
            while self._may_go_on(name):
                with self._take:
                    first, stop = self.sent, min(self.sent + BATCH, len(self._deliveries))
                    self.sent = stop
                if first == stop:  # all is sent: others again, as producers do that were never told
                    first = random.randrange(len(self._deliveries) - BATCH)
                    stop = first + BATCH
                self._append(log, list(range(first, stop)))
                self._stop.wait(self._pace)
        finally:
            log.close()

    def _append(self, log: EventLog, places: list[int]) -> None:
        """Append these until there is a receipt for each, also when all is to end."""
        part = self._deliveries.part
        while places:
            columns = [part(place, place + 1) for place in places] if len(places) < BATCH else [part(places[0], places[-1] + 1)]
            left: list[int] = []
            at = 0
            for one in columns:
                mine = places[at : at + len(one)]
                at += len(one)
                try:
                    outcomes = log.append_columns(one.columns(), one.admitted_at).outcomes
                except Exception as error:
                    if not isinstance(error, _PASSING) and not is_transient(error):
                        raise
                    self.told.refused[f"append: {type(error).__name__}"] += 1
                    self._doubt(mine)
                    left += mine
                    continue
                for place, outcome in zip(mine, outcomes, strict=True):
                    if not isinstance(outcome, RecordRefusal):
                        self.told.receipts.append((outcome, place))
                        continue
                    if outcome.reason is not RefusalReason.LOG_UNAVAILABLE:
                        self.told.wrong.append(f"append of {self._deliveries.event_ids[place]}: {outcome}")
                        continue
                    self.told.refused[f"append: {outcome.reason}"] += 1
                    self._doubt([place])
                    left.append(place)
            places = left
            if places:
                time.sleep(0.2)

    def _doubt(self, places: Sequence[int]) -> None:
        self.told.in_doubt.update(self._deliveries.event_ids[place] for place in places)

    # ------------------------------------------------------------------------------------------ readers

    def _read(self, chance: random.Random, name: str) -> None:
        with self.client() as client:
            while self._may_go_on(name):
                number = chance.randrange(len(self._questions))
                question = self._questions[number]
                request = make_request(
                    context_pins=self._pins,
                    feature_keys=question.keys,
                    feature_groups=question.groups,
                    as_of_time_utc=format_time(question.as_of),
                )

                def ask(request: object = request, number: int = number) -> None:
                    answer = client.ask(request)  # type: ignore[arg-type]
                    self.told.served.append((number, answer.provenance.input_basis, verify(answer)))

                self._told("get_features", ask)
                self._stop.wait(0.02)

    def _decide(self, chance: random.Random, name: str) -> None:
        """Decide on records that the log has a receipt for, and record the decisions."""
        with self.client() as client:
            while self._may_go_on(name):
                self._stop.wait(0.05)
                if not self.told.receipts:
                    continue
                position, place = chance.choice(self.told.receipts[-200:])
                event = self._event(position, place)
                request = CARD_PAYMENTS.request(event, self._pins)
                if request is None or self._deliveries.event_types[place] != CARD_PAYMENTS.event_type:
                    continue
                if self._deliveries.pins[int(self._deliveries.pins_index[place])] != self._pins:
                    continue

                def decide(event: ReadEvent = event, request: object = request) -> None:
                    answer = client.ask(request)  # type: ignore[arg-type]
                    verify(answer)
                    record = record_of(answer, event, CARD_PAYMENTS.event_type, CARD_PAYMENTS.rule, time.time_ns() // 1000)
                    try:
                        client.record_decision(record)
                    except ContractError as error:
                        if error.reason.value != "DECISION_CONFLICT":  # decided already, a moment before
                            raise
                        return
                    self.told.decided.append(record.decision_id)

                self._told("decision", decide)

    def _event(self, position: Position, place: int) -> ReadEvent:
        payload = orjson.loads(self._deliveries.payloads[place])
        return ReadEvent(position, self._deliveries.event_ids[place], int(self._deliveries.ts[place]), payload)

    def _told(self, what: str, action: Callable[[], None]) -> None:
        """Ask, and keep what the service said: an answer, or a refusal in words of the contract, in time."""
        began = time.monotonic()
        try:
            action()
        except ContractError as error:
            self.told.refused[f"{what}: {error.reason.value}"] += 1
            if error.reason.value in _DEFECTS:
                self.told.wrong.append(f"{what}: {error.reason.value}: {error}")
        except (ServiceUnreachable, AnswerNotTrusted) as error:
            self.told.wrong.append(f"{what}: {type(error).__name__}: {error}, after {time.monotonic() - began:.1f} s")
        finally:
            self.told.longest_seconds = max(self.told.longest_seconds, time.monotonic() - began)

    def _poll(self) -> None:
        with self.client() as client:
            while not self._stop.wait(0.2):

                def look() -> None:
                    health = client.health()
                    self.told.postures.append((time.monotonic(), health.state.value, health.reasons))

                self._told("health", look)
