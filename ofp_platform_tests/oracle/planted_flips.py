"""A run of few decisions, each of which one planted change flips: what the causes of what-if are held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from ofp_platform.decisions.decided_span import PastDecision
from ofp_platform.decisions.deciding import Evidence, ReadyBundle, decide
from ofp_platform.decisions.event_reader import ReadEvent
from ofp_platform.identity.graph_knowledge import GraphKnowledge
from ofp_platform.kernel.snapshot import Answer
from ofp_platform.offline.parity.parity import ParityRuns
from ofp_platform.offline.parity.vector_variants import Otherwise, VectorVariants
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.identity import KeyType
from ofp_platform.vocabulary.loop.bundle import (
    Bundle,
    BundleInForce,
    BundleModel,
    BundleRef,
    Comparison,
    FeatureOperand,
    Guardrail,
    Slot,
)
from ofp_platform.vocabulary.loop.decision_record import DecidedUnder, DecisionRecord, loop_decision_id
from ofp_platform.vocabulary.loop.eval_report import Thresholds
from ofp_platform.vocabulary.loop.exact_model import ExactModel
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.loop.posture import Mode, PostureInForce
from ofp_platform.vocabulary.position import Position
from ofp_platform.vocabulary.serving import FeatureDefinitionSet, FeatureGroupRef
from ofp_platform_tests.oracle import fold, graph
from ofp_platform_tests.oracle.rebuilt import replayed
from ofp_platform_tests.oracle.resolved_plane import ResolvedPlane
from ofp_platform_tests.oracle.small_plane import RUN_CONFIG, envelope, payment
from ofp_platform_tests.oracle.strategies import PINS, SECOND, START

WHOLE = FeatureGroupRef(group_name="whole", group_version="v1")
LISTS = FeatureGroupRef(group_name="lists", group_version="v1")
AT = 9
"""The second at which everything is decided on."""
_CONTROL = Position(stream_name="control", partition_id="0000", offset=3)


def rule(group: FeatureGroupRef, feature: str, bound: int, outcome: Any = Outcome.REVIEW) -> Guardrail:
    """The outcome from a value of a feature on."""
    operand = FeatureOperand(group_name=group.group_name, group_version=group.group_version, feature=feature)
    comparison = Comparison(feature=operand, operator="at_least", value=bound)
    return Guardrail(reason_code=f"{feature.upper()}_{bound}", outcome=outcome, all_of=(comparison,))


def ready_bundle(
    registry: CompiledRegistry,
    guardrails: tuple[Guardrail, ...],
    groups: tuple[FeatureGroupRef, ...] = (LISTS, WHOLE),
    model: ExactModel | None = None,
    **more: Any,
) -> ReadyBundle:
    """A bundle of rules on payments, and of a model that reviews from a score of 1 on."""
    thresholds = Thresholds(review_from=1, decline_from=1_000)
    content = {
        "bundle_name": "planted",
        "event_type": "payment",
        "key_fields": {KeyType.ACCOUNT: "account_id"},
        "groups": groups,
        "feature_definition_set": FeatureDefinitionSet(pack_id="resolving", revision=1, digest=registry.digest),
        "guardrails": guardrails,
        "model": None if model is None else BundleModel(path="learning/planted.json", digest=model.digest, thresholds=thresholds),
        **more,
    }
    return ReadyBundle(Bundle.model_validate(content), model)


def amendment(event_id: str, of: Mapping[str, Any], second: int, kind: str = "replace", **payload: Any) -> dict[str, Any]:
    """A payment that stands in place of another one from a second on, or voids it."""
    amends = {"event_class": "payment", "event_id": of["event_id"], "ts_utc": of["ts_utc"], "kind": kind}
    return {**envelope("payment", event_id, second * SECOND, {**of["payload"], **payload}), "amends": amends}


@dataclass
class PlantedRun:
    """A run on a small plane that resolves identities. `decisions`: by account, in the order in which they were made."""

    site: ResolvedPlane
    ready: ReadyBundle
    decisions: dict[str, PastDecision] = field(default_factory=dict)
    _count: int = 0

    def pay(self, account: str, second: int, amount: int = 7, **payload: Any) -> dict[str, Any]:
        """The envelope of another payment of an account."""
        self._count += 1
        return payment(f"p-{self._count}", second * SECOND, account_id=account, amount=amount, **payload)

    def append(self, *envelopes: Mapping[str, Any], partition: int = 0) -> list[Position]:
        """Append, and project."""
        positions = self.site.plane.append(envelopes, (partition,))
        self.site.plane.drain()
        return positions

    def late(self, *envelopes: Mapping[str, Any]) -> None:
        """Append behind all decisions."""
        self.site.plane.append(envelopes, (1,))

    def ask(self, account: str) -> Answer:
        """The vector of an account."""
        groups = [(group.group_name, group.group_version) for group in self.ready.bundle.groups]
        request = self.site.plane.request([("account", account)], groups, START + AT * SECOND)
        return self.site.plane.reader.answer(request)

    def decide(self, account: str, *, causal: bool = True, mode: Mode = Mode.NORMAL, **payload: Any) -> PastDecision:
        """Decide on a payment of the account; without `causal`, on a vector that was asked for before the payment was there."""
        own = self.pay(account, AT, **payload)
        early = None if causal else self.ask(account)
        [position] = self.append(own)
        answer = early or self.ask(account)
        event = ReadEvent(position, own["event_id"], fold.micros(own["ts_utc"]), own["payload"])
        past = past_decision(self.ready, event, answer, mode)
        self.decisions[account] = past
        return past

    def load(self, ref: BundleRef) -> ReadyBundle:
        """The bundle that decided."""
        assert ref == self.ready.ref
        return self.ready

    def variants(self, folder: Path, *, as_known_now: bool = True, pack: CompiledRegistry | None = None) -> VectorVariants:
        """What rebuilds the vectors of the run."""
        plane, context = self.site.plane, self.site.context()
        runs = {(plane.registry.digest, RUN_CONFIG): replayed(plane, folder / "own", registry=plane.registry)}
        other = None if pack is None else (pack.digest, RUN_CONFIG)
        if pack is not None and other is not None:
            runs[other] = replayed(plane, folder / "other", registry=pack)
        parity = ParityRuns(plane.log.stream_name, plane.pins, runs, context)
        later, newest = (plane.log.ends(), GraphKnowledge(context).newest) if as_known_now else (None, None)
        return VectorVariants(parity, Otherwise(later, newest, other))

    def link(self, member: str, canonical: str, second: int = 0) -> None:
        """Link two accounts."""
        self.site.link([graph.SaidLink("account", member, canonical, START + second * SECOND, member.encode(), True)])


def past_decision(ready: ReadyBundle, event: ReadEvent, answer: Answer | None, mode: Mode = Mode.NORMAL) -> PastDecision:
    """The decision on an event by a bundle, as it is recorded."""
    body = None if answer is None else orjson.loads(answer.body)
    by_key = None if body is None else body["snapshot"]["by_key"]
    features = {
        (group["group_name"], group["group_version"], name): value
        for key in by_key or ()
        for group in key["by_group"]
        for name, value in group["features"].items()
    }
    verdict = decide(ready, mode, Evidence(features, event.payload, event.ts), "decline")
    vector: dict[str, Any] = {}
    pins = None
    if body is not None:
        provenance = body["provenance"]
        pins = provenance["context_pins"]
        vector = {
            "feature_snapshot_hash": provenance["feature_snapshot_hash"],
            "feature_keys": provenance["requested"]["feature_keys"],
            "feature_groups": provenance["requested"]["feature_groups"],
            "request_context": provenance["requested"]["request_context"],
            "feature_definition_set": FeatureDefinitionSet.model_validate(provenance["feature_definition_set"]),
            "run_config_digest": provenance["run_config_digest"],
            "input_basis": provenance["input_basis"],
            "graph_version": provenance["graph_version"],
        }
    record = DecisionRecord.model_validate(
        {
            "contract_version": "v1",
            "decision_id": loop_decision_id(event.event_id, ready.ref, event.position),
            "context_pins": pins or PINS,
            "event_type": "payment",
            "event_id": event.event_id,
            "event_position": event.position,
            "as_of_time_utc": fold.time_text(event.ts),
            **vector,
            "policy_rev": f"1.{'0' * 64}",
            "score": verdict.score,
            "outcome": verdict.outcome,
            "decided_at_utc": "2026-01-01T00:00:00Z",
            "bundle": BundleInForce(bundle=ready.ref, sequence=2, position=_CONTROL),
            "slot": Slot.ACTIVE,
            "posture": DecidedUnder(
                in_force=PostureInForce(mode=mode, sequence=0, position=_CONTROL),
                applied_mode=mode,
                fail_closed=Outcome.DECLINE,
            ),
            "reason_codes": verdict.reason_codes,
        }
    )
    text = canonical_bytes(record.wire()).decode()
    return PastDecision(text, orjson.loads(text), event, by_key)
