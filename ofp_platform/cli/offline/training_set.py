"""A training set of the profile's run, as an intent that anybody could have written: the demo's, and that of `ofp intent new`."""

from __future__ import annotations

from dataclasses import dataclass

from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.build_intent import (
    AsOfBasis,
    DatasetBuild,
    FeaturePackRef,
    LabelRequest,
    Offsets,
    PerEvent,
    PolicyRef,
    Purpose,
)
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.serving import FeatureGroupRef
from ofp_platform.vocabulary.times import format_time, parse_duration

# both replays report a fraud seven days after its payment, and a late record is admitted up to six hours after its time
_MATURITY_SECONDS = (parse_duration("7d") + parse_duration("6h")) // 1_000_000


FRAUD_TRAINING = PolicyRef(policy_id="fraud_training", revision=1)


@dataclass(frozen=True)
class TrainingSet:
    """Which rows, what they may know, and which label is learned. `submitted_by`: who asks, as the manifest says it.

    The handbook's protocol computes features by event time: hindsight, and so said.
    """

    name: str
    event_type: str
    as_of_basis: AsOfBasis
    payload_fields: tuple[str, ...] = ("amount_minor",)
    label_type: str = "fraud"
    maturity_seconds: int = _MATURITY_SECONDS
    submitted_by: str = "ofp-demo"
    policy: PolicyRef = FRAUD_TRAINING


SIMULATED = TrainingSet("fraud_by_payment", "card_payment", AsOfBasis.INGEST_TIME)
HANDBOOK = TrainingSet("fraud_by_transaction", "transaction", AsOfBasis.EVENT_TIME)


def training_intent(
    training_set: TrainingSet, registry: CompiledRegistry, pins: ContextPins, ends: Basis, facts: str, known_until: int
) -> DatasetBuild:
    """The intent: all of the run up to `ends`, all groups that the event touches, labels as of `known_until` (microseconds)."""
    keys = registry.pack.events[training_set.event_type].keys
    return DatasetBuild(
        context_pins=pins,
        run_facts_ref=facts,
        stream_name=ends.stream_name,
        policy=training_set.policy,
        dataset_name=training_set.name,
        purpose=Purpose.TRAINING,
        replay=Offsets(basis=ReplayBasis.up_to(ends)),
        feature_pack=FeaturePackRef(pack_id=registry.pack.pack_id, revision=registry.pack.revision, digest=registry.digest),
        feature_groups=tuple(
            FeatureGroupRef(group_name=name, group_version=version)
            for (name, version), plan in sorted(registry.groups.items())
            if plan.key_type in keys
        ),
        scope=PerEvent(event_types=(training_set.event_type,), payload_fields=training_set.payload_fields),
        as_of_basis=training_set.as_of_basis,
        label=LabelRequest(
            label_type=training_set.label_type,
            as_of_utc=format_time(known_until),
            maturity_seconds=training_set.maturity_seconds,
        ),
        submitted_by=training_set.submitted_by,
    )
