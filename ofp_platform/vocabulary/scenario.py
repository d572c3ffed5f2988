"""Runs of scenarios: what is asked for, what was planned and checked, the state of a run, and what control says of it."""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.model import Digest, Model, Name, PolicyRev, SafeIdentifier, Time
from ofp_platform.vocabulary.offline.build_plan import PinnedPack
from ofp_platform.vocabulary.offline.run_facts import CheckEvidence, CheckStatus, ScenarioRunId, TrafficMode
from ofp_platform.vocabulary.position import Position, StreamName
from ofp_platform.vocabulary.serving import Count, Version
from ofp_platform.vocabulary.world import WorldName

RUN_READY, RUN_END, RUN_CANCEL = "run_ready", "run_end", "run_cancel"
"""The event types of the control stream."""
Speedup = Annotated[
    str, Field(pattern=r"^(0|[1-9][0-9]{0,8})(\.[0-9]{1,3})?$", description="event time over this; 0: as fast as it goes")
]


class RunRequest(Model):
    """A run as it is asked for: a sealed world by its digest, the outputs that are streamed, how fast, under which policy."""

    kind: Literal["run_request"] = "run_request"
    contract_version: Version = "v0"
    context_pins: ContextPins
    world: WorldName
    manifest_digest: Digest
    mode: Annotated[TrafficMode, Field(strict=False)]
    outputs: tuple[Name, ...] = Field(strict=False, min_length=1, description="in the order of their names")
    speedup: Speedup
    policy_rev: PolicyRev

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if list(self.outputs) != sorted(set(self.outputs)):
            raise ValueError("outputs must each be named once, in the order of their names")
        return self

    def wire(self) -> dict[str, Any]:
        """As stored: absent pins left out."""
        return {**self.model_dump(mode="json", exclude={"context_pins"}), "context_pins": self.context_pins.wire()}

    @property
    def intent_digest(self) -> str:
        """SHA-256 over the canonical bytes of it all but the session: sessions of one scenario have one intent."""
        return digest_of({**self.wire(), "context_pins": _pins_without_session(self.context_pins)})


def _pins_without_session(pins: ContextPins) -> dict[str, str | int]:
    return {name: value for name, value in pins.wire().items() if name not in ("platform_run_id", "scenario_run_id")}


class RunMeaning(Model):
    """Everything that shapes what a run means, by digest: two runs of one meaning give the same vectors for the same events."""

    context_pins: ContextPins
    manifest_digest: Digest
    mode: Annotated[TrafficMode, Field(strict=False)]
    outputs: tuple[Name, ...] = Field(strict=False)
    stream_name: StreamName
    context_stream: StreamName | None = None
    feature_pack: PinnedPack
    run_config_digest: Digest
    class_map_digest: Digest

    @property
    def equivalence_key(self) -> str:
        """SHA-256 over the canonical bytes of it all, but the session and the name that follows from it."""
        own_pins = _pins_without_session(self.context_pins)
        return digest_of({**self.model_dump(mode="json", exclude={"context_pins"}), "context_pins": own_pins})

    @property
    def scenario_run_id(self) -> str:
        """The name of the run, from its key."""
        return sha256(f"sr_run|{self.equivalence_key}".encode()).hexdigest()[:32]


class RunPlan(Model):
    """A run as it was resolved before anything was checked: its request, and all that shapes its meaning."""

    kind: Literal["run_plan"] = "run_plan"
    contract_version: Version = "v0"
    scenario_run_id: ScenarioRunId
    run_equivalence_key: Digest
    request: RunRequest
    meaning: RunMeaning

    def wire(self) -> dict[str, Any]:
        """As stored: what is absent is left out."""
        return self.model_dump(mode="json", exclude_none=True)

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical bytes of it all."""
        return digest_of(self.wire())


class RunRecord(Model):
    """One examination of a run: each gate with its evidence, in the order of their names. Kept by digest."""

    kind: Literal["run_record"] = "run_record"
    contract_version: Version = "v0"
    scenario_run_id: ScenarioRunId
    plan_digest: Digest
    evidence: tuple[CheckEvidence, ...] = Field(strict=False, min_length=1)

    def wire(self) -> dict[str, Any]:
        """As stored."""
        return self.model_dump(mode="json")

    def failed_gates(self) -> list[str]:
        """The gates that did not pass."""
        return [item.check for item in self.evidence if item.status is not CheckStatus.PASS]


class RunState(StrEnum):
    """The state of a run. Only a run that is READY takes events; one that ENDED is served and built from, too."""

    REFUSED = "REFUSED"
    READY = "READY"
    ENDED = "ENDED"
    CANCELLED = "CANCELLED"


READABLE_STATES = frozenset({RunState.READY, RunState.ENDED})
"""Those in which a run is served and built from."""


class RunStatus(Model):
    """One step of a run, appended when it happened. `record_digest`: of the examination that let it become READY, or refused it.

    `facts_digest`, `facts_reference`, `message_id`, `position`: of READY, and what control says from then on.
    """

    kind: Literal["run_status"] = "run_status"
    contract_version: Version = "v0"
    context_pins: ContextPins
    scenario_run_id: ScenarioRunId
    sequence: Count
    state: Annotated[RunState, Field(strict=False)]
    at_utc: Time
    actor: SafeIdentifier
    reason: str = Field(max_length=400)
    plan_digest: Digest
    record_digest: Digest
    facts_reference: SafeIdentifier | None = None
    facts_digest: Digest | None = None
    message_id: Digest | None = None
    position: Position | None = None

    @model_validator(mode="after")
    def _told_on_control(self) -> Self:
        told_facts = (self.facts_reference, self.facts_digest, self.message_id, self.position)
        if (None in told_facts) != (self.state is RunState.REFUSED):
            raise ValueError("a run that is or was READY has facts and a message on control; one that was refused has none")
        return self

    def wire(self) -> dict[str, Any]:
        """As it crosses a boundary: what is absent is left out."""
        return self.model_dump(mode="json", exclude_none=True)


class ControlPayload(Model):
    """The payload of RUN_READY, RUN_END and RUN_CANCEL. `message_id`: the same message has the same, whoever sends it again."""

    message_id: Digest
    platform_run_id: SafeIdentifier
    scenario_run_id: ScenarioRunId
    facts_reference: SafeIdentifier
    facts_digest: Digest
    actor: SafeIdentifier
    reason: str = Field(max_length=400)


class RunAsk(Model):
    """A run as somebody asks for it by file or over HTTP, before anything is resolved. `outputs`: none for all that are streamed;
    `reference`: of its facts, none for STREAM/RUN_ID.
    """

    kind: Literal["run_ask"] = "run_ask"
    contract_version: Version = "v0"
    world: WorldName
    mode: Annotated[TrafficMode, Field(strict=False)] = TrafficMode.FRAUD
    outputs: tuple[Name, ...] | None = Field(default=None, strict=False, min_length=1)
    speedup: Speedup = "0"
    reference: SafeIdentifier | None = None

    def wire(self) -> dict[str, Any]:
        """As stored: what is absent is left out."""
        return self.model_dump(mode="json", exclude_none=True)


class RunAskAnswer(Model):
    """Where an ask stands. `state`: PENDING until a runner has looked at it, then what it made of it; `problems`: why it was
    refused, in words; `run`: the last step of the run as it is now.
    """

    kind: Literal["run_ask_answer"] = "run_ask_answer"
    contract_version: Version = "v0"
    context_pins: ContextPins
    ask_id: Count
    ask: RunAsk
    actor: SafeIdentifier
    state: Literal["PENDING", "REFUSED", "READY"]
    problems: tuple[str, ...] = Field(default=(), strict=False)
    run: RunStatus | None = None

    def wire(self) -> dict[str, Any]:
        """As it crosses a boundary: what is absent is left out."""
        return self.model_dump(mode="json", exclude_none=True)


def platform_run_of(pins: ContextPins) -> str:
    """The session that a run belongs to; a run without one is a session of its own."""
    return pins.platform_run_id or pins.run_id


def message_id(event_type: str, pins: ContextPins, scenario_run_id: str, facts_digest: str) -> str:
    """The id of what control says of a run: from what is said, the run, and the facts that it stands on."""
    text = f"{event_type.removeprefix('run_')}|{platform_run_of(pins)}|{scenario_run_id}|{facts_digest}"
    return sha256(text.encode()).hexdigest()
