"""Plans and refusals to try the run ledger with."""

from __future__ import annotations

from typing import Any

from ofp_platform.offline.requests.intent_file import parse_intent
from ofp_platform.offline.requests.policies import BuildPolicies
from ofp_platform.vocabulary.offline.build_intent import AdmissionTimes, DatasetBuild, request_id
from ofp_platform.vocabulary.offline.build_plan import BuildPlan, PinnedRunFacts
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, Refusal
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan, ReplayBasis
from ofp_platform.vocabulary.position import OffsetKind
from ofp_platform_tests.oracle.intents import DATASET, changed

STORE_DOWN = Refusal(reason=BuildReason.STORE_UNAVAILABLE, field="", message="the object store is full")
LEAK = Refusal(reason=BuildReason.LEAKAGE_DETECTED, field="label", message="a label of tomorrow")


def dataset_intent(name: str = "fraud_by_payment", **changes: Any) -> DatasetBuild:
    """A dataset build; another name is another request."""
    intent = parse_intent(changed(DATASET, dataset_name=name, **changes))
    assert isinstance(intent, DatasetBuild)
    return intent


def plan_of(intent: DatasetBuild, *, next_offset: int = 10) -> BuildPlan:
    """A plan of it over one partition, as a resolver would make it."""
    assert isinstance(intent.replay, AdmissionTimes)
    span = PartitionSpan(partition_id="0000", offset_kind=OffsetKind.EXCLUSIVE_NEXT, start=0, next=next_offset)
    return BuildPlan(
        request_id=request_id(intent),
        intent=intent,
        context_pins=intent.context_pins,
        stream_name=intent.stream_name,
        run_facts=PinnedRunFacts(reference=intent.run_facts_ref, digest="4" * 64),
        replay_basis=ReplayBasis(stream_name=intent.stream_name, partitions=(span,)),
        replay_selected_by=intent.replay,
        cut_over=(span.first,),
        clock_skew_us=0,
        allowed_lateness_us=0,
        run_config_digest="5" * 64,
        policy=BuildPolicies().resolve(intent.policy),
        ofs_code_release_id="ofp-platform-0",
    )
