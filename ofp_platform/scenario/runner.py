"""The scenario runner: resolves a request, checks each gate, keeps the evidence, and says READY, RUN_END, RUN_CANCEL on control.

What a step says, the facts that it names and its message on control are committed together. A run that was refused can be asked
for again, also as another; one that was READY stays what it was, and one that ended or was cancelled is over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from ofp_platform.ingress.class_map import ClassMap, class_map_in_force
from ofp_platform.ingress.door import class_map_path
from ofp_platform.ingress.own_streams import Message, append_messages
from ofp_platform.ingress.publish_rows import count_on_their_way
from ofp_platform.log.postgres import PostgresLog, log_answering
from ofp_platform.offline.requests.run_facts_view import examine_run, publish_run_facts_with
from ofp_platform.online.plane import Plane, profile_pack
from ofp_platform.online.state.projection import publish_registry, tell_of_switch
from ofp_platform.registry.compile import compile_pack
from ofp_platform.scenario.gates import world_gates
from ofp_platform.storage.evidence import keep_evidence
from ofp_platform.storage.run_states import append_run_status, lock_run, read_run_status
from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.offline.build_plan import PinnedPack
from ofp_platform.vocabulary.offline.run_facts import (
    CheckEvidence,
    CheckStatus,
    RunCheckEvidence,
    RunFacts,
    ScenarioEvidence,
    ScenarioFacts,
    TrafficMode,
)
from ofp_platform.vocabulary.scenario import (
    RUN_CANCEL,
    RUN_END,
    RUN_READY,
    ControlPayload,
    RunMeaning,
    RunPlan,
    RunRecord,
    RunRequest,
    RunState,
    RunStatus,
    message_id,
    platform_run_of,
)
from ofp_platform.vocabulary.times import format_time
from ofp_platform.vocabulary.world import OutputRole
from ofp_platform.world.world_store import World, open_world

_RUN = "SELECT pins_digest, scenario_run_id, intent_digest FROM ofp.scenario_run WHERE pins_digest = %s OR scenario_run_id = %s"
_ADD_RUN = """
    INSERT INTO ofp.scenario_run (pins_digest, scenario_run_id, intent_digest, plan_digest) VALUES (%s, %s, %s, %s)
    ON CONFLICT (pins_digest) DO NOTHING"""


class RunRefused(Exception):
    """A step that a run cannot take; the text says why and what to do."""


@dataclass(frozen=True)
class RunnerOutcome:
    """The state of a run behind a step. `problems`: of each gate that failed, in words. `is_new`: the step was taken now."""

    status: RunStatus
    is_new: bool
    evidence: Sequence[CheckEvidence] = ()
    problems: Sequence[str] = ()


@dataclass(frozen=True)
class ScenarioRunner:
    """Of the run of a plane, whose profile has a stream of control. `now`: microseconds; `actor`: who asks, for the record."""

    plane: Plane
    actor: str
    now: Callable[[], int]

    @property
    def pins(self) -> ContextPins:
        """The run."""
        return self.plane.profile.context_pins

    def request(
        self, world_name: str, *, mode: TrafficMode, outputs: Sequence[str] | None = None, speedup: str = "0", reference: str
    ) -> RunnerOutcome:
        """Ask for the run: READY where every gate passes, else REFUSED. `outputs`: None for all that are streamed; `reference`:
        that of its facts. Asked for again while it is READY, nothing happens.

        Raises:
            RunRefused: EQUIV_KEY_COLLISION, PINS_TAKEN, RUN_OVER. WorldFault: there is no such sealed world.
            RunFactsConflict: the reference names other facts. NoControlStream: the profile names none.
            RegistryRefused | LogUnavailable | ObjectStoreUnavailable: see there.
        """
        control = self.plane.control_log(create=True)
        world = open_world(self.plane.objects, world_name)
        plan, class_map = self._plan(world, mode, outputs, speedup)
        with log_answering(), self.plane.pool.connection() as connection, connection.transaction():
            lock_run(connection, self.pins)
            self._demand_free(connection, plan)
            status = read_run_status(connection, self.pins)
        if status is not None and status.state is RunState.READY:
            return RunnerOutcome(status, is_new=False)
        if status is not None and status.state is not RunState.REFUSED:
            raise RunRefused(f"RUN_OVER: the run is {status.state}: ask for one of another session (platform_run_id in its pins)")
        gates = world_gates(world, plan, class_map)
        facts = self._facts(plan, gates, reference)
        record = RunRecord(scenario_run_id=plan.scenario_run_id, plan_digest=plan.digest, evidence=facts.evidence)
        problems = [f"{name}: {text}" for name, gate_evidence in gates.items() for text in gate_evidence.problems]
        problems += [f"{name}: FAIL" for name in record.failed_gates() if name not in gates]
        return self._conclude(control, plan, record, facts, gates, problems)

    def end(self, reason: str) -> RunnerOutcome:
        """Say RUN_END: no more events are admitted; what is there is served and built from. Again, nothing happens.

        Raises:
            RunRefused: it is not READY, or records of it are on their way into the log.
            NoControlStream | LogUnavailable: see there.
        """
        return self._leave(RUN_END, RunState.ENDED, (RunState.READY,), reason)

    def cancel(self, reason: str) -> RunnerOutcome:
        """Say RUN_CANCEL: nothing more is admitted, and nothing of it served or built from. Again, nothing happens.

        Raises:
            RunRefused: it never was READY. NoControlStream | LogUnavailable: see there.
        """
        return self._leave(RUN_CANCEL, RunState.CANCELLED, (RunState.READY, RunState.ENDED), reason)

    def _plan(self, world: World, mode: TrafficMode, outputs: Sequence[str] | None, speedup: str) -> tuple[RunPlan, ClassMap]:
        profile, manifest = self.plane.profile, world.manifest
        if outputs is None:
            outputs = [item.output for item in manifest.outputs if item.role is not OutputRole.TRUTH]
        if not outputs:
            raise RunRefused(f"world {manifest.world} has no output that is streamed")
        pack = profile_pack(profile)
        registry = compile_pack(pack)
        with self.plane.pool.connection() as connection, connection.transaction():
            publish_registry(connection, registry)
        class_map = class_map_in_force(profile, pack)
        self.plane.objects.put_same(class_map_path(class_map.digest), class_map.stored())
        request = RunRequest(
            context_pins=self.pins,
            world=manifest.world,
            manifest_digest=world.seal.manifest_digest,
            mode=mode,
            outputs=tuple(sorted(set(outputs))),
            speedup=speedup,
            policy_rev=profile.policy_rev,
        )
        meaning = RunMeaning(
            context_pins=self.pins,
            manifest_digest=request.manifest_digest,
            mode=mode,
            outputs=request.outputs,
            stream_name=profile.stream_name,
            context_stream=profile.context_stream,
            feature_pack=PinnedPack(pack_id=pack.pack_id, revision=pack.revision, digest=registry.digest),
            run_config_digest=profile.run_config_digest,
            class_map_digest=class_map.digest,
        )
        plan = RunPlan(
            scenario_run_id=meaning.scenario_run_id,
            run_equivalence_key=meaning.equivalence_key,
            request=request,
            meaning=meaning,
        )
        return plan, class_map

    def _demand_free(self, connection: Connection[Any], plan: RunPlan) -> None:
        """Refuse a plan whose key, or whose pins, are those of another run that became READY."""
        own_digest, intent = pins_digest(self.pins), plan.request.intent_digest
        for taken_by, scenario_run_id, intent_digest in connection.execute(_RUN, (own_digest, plan.scenario_run_id)).fetchall():
            if scenario_run_id == plan.scenario_run_id and intent_digest != intent:
                raise RunRefused(
                    f"EQUIV_KEY_COLLISION: scenario run {scenario_run_id} was asked for with another intent (speedup or policy):"
                    " ask for it as it was (`ofp run show`), or for one that differs in what it means"
                )
            if taken_by == own_digest and scenario_run_id != plan.scenario_run_id:
                raise RunRefused(
                    f"PINS_TAKEN: these pins are those of scenario run {scenario_run_id}, and this one is"
                    f" {plan.scenario_run_id}: another world, mode, pack or policy of time needs pins of its own"
                )

    def _facts(self, plan: RunPlan, gates: Mapping[str, ScenarioEvidence], reference: str) -> RunFacts:
        """The facts of the run as they would be published, with the evidence of every gate; that of the world is kept later."""
        examined_facts = examine_run(self.plane.pool, self.plane.log, self.plane.profile, plan.meaning.feature_pack, reference)
        evidence = [*examined_facts.evidence, *(_check(name, self.pins, gate_evidence) for name, gate_evidence in gates.items())]
        scenario = ScenarioFacts(
            scenario_run_id=plan.scenario_run_id,
            plan_digest=plan.digest,
            world=plan.request.world,
            manifest_digest=plan.request.manifest_digest,
            outputs=plan.request.outputs,
            traffic_delivery_mode=plan.request.mode,
            class_map_digest=plan.meaning.class_map_digest,
            context_stream=plan.meaning.context_stream,
        )
        in_order = tuple(sorted(evidence, key=lambda item: item.check))
        return examined_facts.model_copy(update={"evidence": in_order, "scenario": scenario})

    def _conclude(
        self,
        control: PostgresLog,
        plan: RunPlan,
        record: RunRecord,
        facts: RunFacts,
        gates: Mapping[str, ScenarioEvidence],
        problems: Sequence[str],
    ) -> RunnerOutcome:
        texts = [_content(name, self.pins, gate_evidence) for name, gate_evidence in gates.items()]
        record_text = canonical_bytes(record.wire())
        with log_answering(), self.plane.pool.connection() as connection:
            with connection.transaction():
                lock_run(connection, self.pins)
                before = read_run_status(connection, self.pins)
                if before is not None and before.state is not RunState.REFUSED:  # another runner was sooner
                    return RunnerOutcome(before, is_new=False)
                keep_evidence(connection, [canonical_bytes(plan.wire()), *texts, record_text])
                status = RunStatus(
                    context_pins=self.pins,
                    scenario_run_id=plan.scenario_run_id,
                    sequence=0 if before is None else before.sequence + 1,
                    state=RunState.REFUSED,
                    at_utc=format_time(self.now()),
                    actor=self.actor,
                    reason=f"failed: {', '.join(record.failed_gates())}" if record.failed_gates() else "every gate passed",
                    plan_digest=plan.digest,
                    record_digest=sha256_hex(record_text),
                )
                if not record.failed_gates():
                    self._demand_free(connection, plan)
                    row = (pins_digest(self.pins), plan.scenario_run_id, plan.request.intent_digest, plan.digest)
                    connection.execute(_ADD_RUN, row)
                    publish_run_facts_with(connection, facts)
                    status = self._told_on_control(connection, control, status, RUN_READY, facts.reference, facts.digest)
                append_run_status(connection, status)
            if status.state is RunState.READY:
                control.tell(connection)
                tell_of_switch(connection)  # services wait for a run that may be served
        return RunnerOutcome(status, is_new=True, evidence=record.evidence, problems=problems)

    def _told_on_control(
        self, connection: Connection[Any], control: PostgresLog, status: RunStatus, event_type: str, reference: str, digest: str
    ) -> RunStatus:
        """The step with what control says of it, which is appended."""
        control_payload = ControlPayload(
            message_id=message_id(event_type, self.pins, status.scenario_run_id, digest),
            platform_run_id=platform_run_of(self.pins),
            scenario_run_id=status.scenario_run_id,
            facts_reference=reference,
            facts_digest=digest,
            actor=self.actor,
            reason=status.reason,
        )
        message = Message(event_type, control_payload.message_id, self.pins, status.at_utc, control_payload)
        [position] = append_messages(connection, control, [message])
        told_fields = {
            "state": _STATE_OF[event_type],
            "facts_reference": reference,
            "facts_digest": digest,
            "message_id": control_payload.message_id,
            "position": position,
        }
        return RunStatus.model_validate({**dict(status), **told_fields})

    def _leave(self, event_type: str, state: RunState, before_states: Sequence[RunState], reason: str) -> RunnerOutcome:
        control = self.plane.control_log(create=True)
        with log_answering(), self.plane.pool.connection() as connection:
            with connection.transaction():
                lock_run(connection, self.pins)
                before = read_run_status(connection, self.pins)
                if before is not None and before.state is state:
                    return RunnerOutcome(before, is_new=False)
                if before is None or before.state not in before_states:
                    known_state = "nobody asked for it" if before is None else f"it is {before.state}"
                    wanted_states = " or ".join(before_states)
                    raise RunRefused(f"run {self.pins.run_id!r} cannot become {state}: {known_state}, and not {wanted_states}")
                if state is RunState.ENDED and (on_their_way := sum(count_on_their_way(connection, pins_digest(self.pins)))):
                    raise RunRefused(
                        f"{on_their_way:,} records of run {self.pins.run_id!r} are on their way into the log, or nobody knows"
                        " whether they are in it: `ofp ingress settle`, and end it then"
                    )
                assert before.facts_reference is not None
                assert before.facts_digest is not None
                step = {"sequence": before.sequence + 1, "at_utc": format_time(self.now()), "actor": self.actor, "reason": reason}
                status = before.model_copy(update=step)
                status = self._told_on_control(
                    connection, control, status, event_type, before.facts_reference, before.facts_digest
                )
                append_run_status(connection, status)
            control.tell(connection)
        return RunnerOutcome(status, is_new=True)


_STATE_OF = {RUN_READY: RunState.READY, RUN_END: RunState.ENDED, RUN_CANCEL: RunState.CANCELLED}


def _content(name: str, pins: ContextPins, gate_evidence: ScenarioEvidence) -> bytes:
    status = CheckStatus.FAIL if gate_evidence.problems else CheckStatus.PASS
    return canonical_bytes(RunCheckEvidence(check=name, context_pins=pins, status=status, looked_at=gate_evidence).wire())


def _check(name: str, pins: ContextPins, gate_evidence: ScenarioEvidence) -> CheckEvidence:
    status = CheckStatus.FAIL if gate_evidence.problems else CheckStatus.PASS
    return CheckEvidence(check=name, status=status, evidence_digest=sha256_hex(_content(name, pins, gate_evidence)))
