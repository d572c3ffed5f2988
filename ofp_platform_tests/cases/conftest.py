"""A desk over a fresh run, with a clock and a label store that a test may take away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import uuid4

import pytest

from ofp_platform.cases.case_desk import CaseDesk
from ofp_platform.offline.labels.label_intake import LabelIntake
from ofp_platform.offline.labels.label_store import LabelStore
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.case import CaseEvent, CaseTrigger, Note
from ofp_platform.vocabulary.loop.case_requests import LabelAsk
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion

START = 1_700_000_000_000_000
SECOND = 1_000_000
EVENT = CaseEvent(event_class="card_payment", event_id="payment-1")
FRAUD = LabelAsk(label_type="fraud_disposition", word="fraud")


def new_run() -> ContextPins:
    """Pins that no other test has used; a count would begin anew where this module is imported, and not taken as a plugin."""
    run_id = f"cases-{uuid4().hex}"
    return ContextPins(scenario_id="cases", run_id=run_id, manifest_fingerprint="a" * 64, parameter_hash="b" * 64)


@dataclass
class Labels:
    """The real label store of the run, which does not answer the next `away` times."""

    intake: LabelIntake
    away: int = 0
    asked: list[tuple[LabelAssertion, str]] = field(default_factory=list)

    def __call__(self, assertion: LabelAssertion, submitted_by: str) -> str | None:
        if self.away:
            self.away -= 1
            raise BuildRefused(BuildReason.STORE_UNAVAILABLE, "it was stopped")
        self.asked.append((assertion, submitted_by))
        return self.intake(assertion, submitted_by)


@dataclass
class Office:
    """Everything around one desk."""

    pool: Pool
    pins: ContextPins
    labels: Labels
    desk: CaseDesk
    moments: Iterator[int]

    def open(self, source_ref: str = "call-1", event: CaseEvent = EVENT) -> str:
        """A case that somebody called for."""
        return self.desk.trigger(event, CaseTrigger.MANUAL_ASSERTION, source_ref, "a customer called", "ann").case_id

    def note(self, case_id: str, text: str = "looked at", source_ref: str = "n-1", actor: str = "ann") -> Any:
        return self.desk.add(case_id, Note(text=text), source_ref, actor)

    def types(self, case_id: str) -> list[str]:
        """The entry types of its timeline."""
        return [entry.content.entry_type.value for entry in self.desk.case(case_id).timeline]

    def stored(self, label_type: str = "fraud_disposition") -> list[tuple[str, int]]:
        """Event and value of what the label store has."""
        table = LabelStore(self.pool, self.pins).assertions(label_type)
        return list(zip(table["event_id"].to_pylist(), table["value"].to_pylist(), strict=True))


@pytest.fixture(scope="module")
def pool(module_dsn: str) -> Iterator[Pool]:
    with open_pool(module_dsn) as opened:
        yield opened


@pytest.fixture
def new_office(pool: Pool) -> Callable[..., Office]:
    def make() -> Office:
        pins = new_run()
        moments = count(START, SECOND)
        labels = Labels(LabelIntake(LabelStore(pool, pins), shipped_pack("card_payments").events))
        return Office(pool, pins, labels, CaseDesk(pool, pins, labels, lambda: next(moments)), moments)

    return make


@pytest.fixture
def office(new_office: Callable[..., Office]) -> Office:
    return new_office()
