"""A plane without a store, which answers with real contract bytes. Also a program: the real server over it."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
from pydantic import ValidationError

from ofp_platform.api import action_examples, case_examples, examples, overview_examples
from ofp_platform.api.app import Application
from ofp_platform.api.authentication import Authentication
from ofp_platform.api.build_examples import rebuilt_example, run_example
from ofp_platform.api.connection_places import ConnectionLimits, TooFewFiles
from ofp_platform.api.http_policy import HttpPolicy
from ofp_platform.api.posture_examples import posture_view_example
from ofp_platform.api.record_requests import read_model
from ofp_platform.api.server import serve
from ofp_platform.api.service import MayRead
from ofp_platform.api.tls import Tls
from ofp_platform.online.serving.request import parse_request
from ofp_platform.registry.question import refuse_run
from ofp_platform.storage.decision_records import DecisionFilter
from ofp_platform.vocabulary.background_tasks import EndedTasks
from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid, not_found
from ofp_platform.vocabulary.identity import ContextPins, FeatureKey
from ofp_platform.vocabulary.loop.action import ActionState
from ofp_platform.vocabulary.loop.action_requests import ActionSettlementAsk
from ofp_platform.vocabulary.loop.case_requests import CaseEntryAsk, CaseTriggerAsk
from ofp_platform.vocabulary.loop.case_standing import CaseState
from ofp_platform.vocabulary.loop.decision_record import DecisionReceipt, DecisionRecord
from ofp_platform.vocabulary.loop.posture import PostureHold, PostureRelease
from ofp_platform.vocabulary.offline.build_intent import INTENT, intent_wire, request_id
from ofp_platform.vocabulary.offline.build_run import RunState
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertions, LabelReceipt
from ofp_platform.vocabulary.profile import Limits
from ofp_platform.vocabulary.serving import Health

PINS = ContextPins.model_validate(examples.request_example()["context_pins"])
BODY = canonical_bytes(examples.response_example())
HASH = examples.response_example()["provenance"]["feature_snapshot_hash"]
REBUILT = canonical_bytes(rebuilt_example())
RECORD = canonical_bytes(examples.snapshot_record_example())

ENDED = EndedTasks()


@dataclass(frozen=True)
class FixedAnswer:
    """An answer made beforehand."""

    body: bytes = BODY
    hash: str = HASH


@dataclass
class FakePort:
    """Parses requests as the plane does and answers the example. `script`: what the next answers do instead."""

    script: list[Exception | float | FixedAnswer] = field(default_factory=list)
    health_now: Health = field(default_factory=lambda: Health.model_validate(examples.health_example()))
    opened: bool = False
    closed: bool = False
    asked: int = 0

    async def open(self) -> None:
        self.opened = True

    async def close(self) -> None:
        self.closed = True

    async def answer(self, body: bytes) -> FixedAnswer:
        self.asked += 1
        parse_request(body, Limits())
        if self.script:
            step = self.script.pop(0)
            if isinstance(step, Exception):
                raise step
            if isinstance(step, FixedAnswer):
                return step
            await asyncio.sleep(step)
        return FixedAnswer()

    def refuse_run(self, body: bytes) -> ContractError:
        return refuse_run(parse_request(body, Limits()), Limits())

    async def snapshot(self, snapshot_hash: str, may_read: MayRead) -> bytes:
        if snapshot_hash != HASH or not may_read(PINS):
            raise not_found(Reason.UNKNOWN_SNAPSHOT, "no snapshot has this hash")
        return RECORD

    async def rebuilt_snapshot(self, snapshot_hash: str, may_read: MayRead) -> bytes:
        if snapshot_hash != HASH or not may_read(PINS):
            raise not_found(Reason.UNKNOWN_SNAPSHOT, "no forensic rebuild gave this hash")
        return REBUILT

    async def feature_groups(self) -> bytes:
        return canonical_bytes(examples.feature_groups_example())

    async def catalogue(self) -> bytes:
        return canonical_bytes(examples.catalogue_example())

    async def entity(self, key: FeatureKey, as_of: int) -> bytes:
        return canonical_bytes(examples.entity_example())

    async def health(self) -> Health:
        return self.health_now

    def metrics(self) -> bytes:
        return b"# TYPE ofp_events_applied_total counter\nofp_events_applied_total 200360.0\n"


@dataclass
class FakePosture:
    """A PosturePort that shows the example. `script`: what the next answers raise instead; `asked`: each step, and by whom."""

    script: list[Exception] = field(default_factory=list)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    closed: bool = False

    async def view(self) -> bytes:
        return self._answer("view")

    async def hold(self, body: bytes, actor: str) -> bytes:
        read_model(PostureHold, body)
        return self._answer("hold", actor)

    async def release(self, body: bytes, actor: str) -> bytes:
        read_model(PostureRelease, body)
        return self._answer("release", actor)

    async def close(self) -> None:
        self.closed = True

    def _answer(self, *asked: str) -> bytes:
        self.asked.append(asked)
        if self.script:
            raise self.script.pop(0)
        return canonical_bytes(posture_view_example())


@dataclass
class FakeBuilds:
    """A run ledger without a database. `script`: the errors that the next requests end in instead."""

    script: list[Exception] = field(default_factory=list)
    runs: dict[str, bytes] = field(default_factory=dict)
    closed: bool = False
    asked: int = 0

    async def submit(self, body: bytes, submitted_by: str, may_read: MayRead) -> bytes:
        self._enter()
        try:
            intent = INTENT.validate_json(body)
        except ValidationError:
            raise invalid(Reason.INTENT_REFUSED, "INVALID_INTENT: no") from None
        if not may_read(intent.context_pins):
            raise not_found(Reason.UNKNOWN_RUN, "no such run", intent.context_pins)
        intent = intent.model_copy(update={"submitted_by": submitted_by})
        run_key = request_id(intent)
        return self.runs.setdefault(run_key, canonical_bytes(run_example() | {"run_key": run_key, "intent": intent_wire(intent)}))

    async def cancel(self, run_key: str, actor: str, may_read: MayRead, submitter: str | None) -> bytes:
        run = orjson.loads(await self.run(run_key, may_read))
        if submitter not in (None, run["intent"].get("submitted_by")):
            raise invalid(Reason.FORBIDDEN, "another principal submitted it")
        refusal = {"reason": "CANCELLED", "field": "", "message": f"cancelled by {actor}"}
        return canonical_bytes(run | {"state": "FAILED", "refusal": refusal})

    async def run(self, run_key: str, may_read: MayRead) -> bytes:
        self._enter()
        if run_key not in self.runs or not may_read(PINS):
            raise not_found(Reason.UNKNOWN_BUILD_RUN, "no run has this key")
        return self.runs[run_key]

    async def close(self) -> None:
        self.closed = True

    def _enter(self) -> None:
        self.asked += 1
        if self.script:
            raise self.script.pop(0)


class FakeOperators:
    """Reads for operators without a database."""

    async def failures(self, after: tuple[str, str] | None, limit: int, reason: str | None) -> bytes:
        return canonical_bytes(examples.apply_failures_example())

    async def explanation(self, snapshot_hash: str, feature: str, key: str | None, group: str | None) -> bytes:
        return canonical_bytes(examples.explanation_example())


@dataclass
class FakeOverviews:
    """Lists of one entry. `script`: what the next answers raise instead; `asked`: the arguments of each."""

    script: list[Exception] = field(default_factory=list)
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    closed: bool = False

    async def builds(self, limit: int, state: RunState | None, cursor: str | None) -> bytes:
        return self._answer(overview_examples.build_list_example(), limit, state, cursor)

    async def build_stages(self, run_key: str, may_read: MayRead) -> bytes:
        return self._answer(overview_examples.build_progress_example(), run_key)

    async def comparisons(self, limit: int, cursor: str | None) -> bytes:
        return self._answer(overview_examples.parity_list_example(), limit, cursor)

    async def parity_report(self, comparison_id: str, before: str | None, may_read: MayRead) -> bytes:
        return self._answer(overview_examples.parity_report_example(), comparison_id, before)

    async def datasets(self, limit: int, cursor: str | None) -> bytes:
        return self._answer(overview_examples.dataset_list_example(), limit, cursor)

    async def dataset(self, name: str, identity: str, may_read: MayRead) -> bytes:
        return self._answer(overview_examples.published_dataset_example(), name, identity)

    async def pack_operations(self, limit: int, cursor: str | None) -> bytes:
        return self._answer(overview_examples.pack_operations_example(), limit, cursor)

    async def bundles(self, limit: int, cursor: str | None) -> bytes:
        return self._answer(overview_examples.bundle_history_example(), limit, cursor)

    async def bundles_in_force(self, at_sequence: int | None, at_time: int | None) -> bytes:
        return self._answer(overview_examples.bundles_in_force_example(), at_sequence, at_time)

    async def close(self) -> None:
        self.closed = True

    def _answer(self, example: dict[str, Any], *arguments: Any) -> bytes:
        self.asked.append(arguments)
        if self.script:
            raise self.script.pop(0)
        return canonical_bytes(example)


@dataclass
class FakeRecords:
    """Decisions in memory, whatever snapshot they name. `script`: what the next answers raise instead."""

    script: list[Exception] = field(default_factory=list)
    recorded: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    asked: list[tuple[DecisionFilter, int, str | None]] = field(default_factory=list)
    closed: bool = False

    async def record(self, body: bytes, submitted_by: str, may_read: MayRead) -> DecisionReceipt:
        self._enter()
        record = DecisionRecord.model_validate_json(body)
        _, first = self.recorded.setdefault(record.decision_id, (canonical_bytes(record.wire()), submitted_by))
        digest = sha256_hex(canonical_bytes(record.wire()))
        return DecisionReceipt(decision_id=record.decision_id, record_digest=digest, submitted_by=first)

    async def decision(self, decision_id: str, may_read: MayRead) -> bytes:
        self._enter()
        if decision_id not in self.recorded or not may_read(PINS):
            raise not_found(Reason.UNKNOWN_DECISION, "no decision has this id")
        return self.recorded[decision_id][0]

    async def decisions(self, chosen: DecisionFilter, limit: int, cursor: str | None, may_read: MayRead) -> bytes:
        self._enter()
        self.asked.append((chosen, limit, cursor))
        contents = [orjson.loads(content) for content, _ in self.recorded.values()]
        head = {"kind": "df_decision_list", "contract_version": "v0", "next_cursor": None}
        return orjson.dumps({**head, "decisions": contents[:limit]})

    async def append_labels(self, body: bytes, submitted_by: str, may_read: MayRead) -> bytes:
        self._enter()
        labels = LabelAssertions.model_validate_json(body)
        return LabelReceipt(new_count=len(labels.assertions), known_count=0).model_dump_json().encode()

    async def close(self) -> None:
        self.closed = True

    def _enter(self) -> None:
        if self.script:
            raise self.script.pop(0)


@dataclass
class FakeCases:
    """One case, the example. `script`: what the next answers raise instead."""

    script: list[Exception] = field(default_factory=list)
    closed: bool = False

    async def cases(self, state: CaseState, limit: int, cursor: str | None) -> bytes:
        return self._answer(case_examples.case_list_example())

    async def case(self, case_id: str, may_read: MayRead) -> bytes:
        return self._answer(case_examples.case_example())

    async def trigger(self, body: bytes, actor: str, may_read: MayRead) -> bytes:
        CaseTriggerAsk.model_validate_json(body)
        return self._answer(case_examples.case_receipt_example())

    async def add(self, case_id: str, body: bytes, actor: str, may_read: MayRead) -> bytes:
        CaseEntryAsk.model_validate_json(body)
        return self._answer(case_examples.case_receipt_example())

    async def close(self) -> None:
        self.closed = True

    def _answer(self, example: dict[str, Any]) -> bytes:
        if self.script:
            raise self.script.pop(0)
        return canonical_bytes(example)


@dataclass
class FakeActions:
    """One action, the example."""

    closed: bool = False

    async def actions(self, state: ActionState | None, limit: int, cursor: str | None) -> bytes:
        return canonical_bytes(action_examples.action_list_example())

    async def action(self, idempotency_key: str, may_read: MayRead) -> bytes:
        return canonical_bytes(action_examples.action_example())

    async def settle(self, idempotency_key: str, body: bytes, actor: str, may_read: MayRead) -> bytes:
        ActionSettlementAsk.model_validate_json(body)
        return canonical_bytes(action_examples.action_example())

    async def close(self) -> None:
        self.closed = True


class BrokenStart(FakePort):
    """A plane that cannot start."""

    async def open(self) -> None:
        raise ConnectionError("the store does not answer")


class SlowOnce(FakePort):
    """The first answer takes a while, and health says whether it was asked for: a stop then has something to wait for."""

    def __init__(self) -> None:
        super().__init__(script=[0.7])

    async def health(self) -> Health:
        return self.health_now.model_copy(update={"reasons": ("asked",) if self.asked else ()})


class Reporting(FakePort):
    """Health tells what the processes of the server warn of."""

    async def health(self) -> Health:
        return self.health_now.model_copy(update={"reasons": tuple(ENDED.warnings())})


PLANES: dict[str, type[FakePort]] = {"good": FakePort, "broken": BrokenStart, "slow": SlowOnce, "reporting": Reporting}


def application() -> Application:
    """What a worker of the test server runs."""
    by_certificate = "OFP_TEST_BY_CERTIFICATE" in os.environ
    authentication = Authentication(
        Path(os.environ["OFP_PRINCIPALS"]),
        PINS,
        time.time,
        warnings=ENDED,
        by_certificate=by_certificate,
    )
    policy = HttpPolicy(body_timeout_seconds=1.0)
    return Application(
        PLANES[sys.argv[4]](),
        FakeBuilds(),
        FakeOperators(),
        FakeRecords(),
        FakeOverviews(),
        posture=FakePosture(),
        authentication=authentication,
        policy=policy,
    )


if __name__ == "__main__":
    limits = ConnectionLimits()
    if "OFP_TEST_PLACES" in os.environ:
        of_a_peer = int(os.environ["OFP_TEST_PLACES_OF_A_PEER"])
        limits = ConnectionLimits(int(os.environ["OFP_TEST_PLACES"]), of_a_peer, head_seconds=60, unread_seconds=60)
    if "OFP_TEST_HANDSHAKES" in os.environ:
        limits = ConnectionLimits(handshakes=int(os.environ["OFP_TEST_HANDSHAKES"]), handshake_seconds=2)
    tls = None
    if "OFP_TEST_TLS" in os.environ:
        tls = Tls(*map(Path, os.environ["OFP_TEST_TLS"].split(os.pathsep)))
    with TemporaryDirectory() as folder:
        ENDED.folder = Path(folder)
        try:
            serve(application, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), limits=limits, tls=tls, ended=ENDED)
        except TooFewFiles as error:
            sys.exit(str(error))
