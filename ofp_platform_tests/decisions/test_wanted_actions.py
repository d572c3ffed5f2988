"""What decisions want: by outcome, on the entity or at the webhook; of nothing that was not looked at."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ofp_platform.decisions.wanted_actions import DECIDER, wanted_actions
from ofp_platform.vocabulary.identity import ContextPins, FeatureKey, KeyType
from ofp_platform.vocabulary.loop.action import WebhookTarget
from ofp_platform.vocabulary.loop.bundle import BundleInForce, BundleRef, Slot
from ofp_platform.vocabulary.loop.decision_record import DecidedUnder, DecisionRecord, Lowering, loop_decision_id
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.loop.posture import Mode, PostureInForce
from ofp_platform.vocabulary.position import Basis, OffsetKind, PartitionBasis, Position
from ofp_platform.vocabulary.profile import DecidedAction
from ofp_platform.vocabulary.serving import FeatureDefinitionSet, FeatureGroupRef

PINS = ContextPins(scenario_id="s", run_id="r", manifest_fingerprint="0" * 64, parameter_hash="1" * 64)
AT = Position(stream_name="payments", partition_id="0000", offset=4)
CONTROL = Position(stream_name="control", partition_id="0000", offset=1)
KNOWN = PartitionBasis(partition_id="0000", offset_kind=OffsetKind.EXCLUSIVE_NEXT, offset=5)
BUNDLE = BundleInForce(bundle=BundleRef(bundle_name="b", digest="2" * 64), sequence=2, position=CONTROL)
HOLD = DecidedAction(outcome="decline", action_type="hold_account", key_type=KeyType.ACCOUNT)
TELL = DecidedAction(outcome="decline", action_type="tell", webhook="payments")


def record(outcome: Outcome, mode: Mode = Mode.NORMAL, slot: Slot = Slot.ACTIVE, **changes: Any) -> DecisionRecord:
    vector = {
        "feature_snapshot_hash": "3" * 64,
        "feature_keys": (
            FeatureKey(key_type=KeyType.ACCOUNT, key_id="acct-1"),
            FeatureKey(key_type=KeyType.CARD, key_id="card-1"),
        ),
        "feature_groups": (FeatureGroupRef(group_name="g", group_version="v1"),),
        "feature_definition_set": FeatureDefinitionSet(pack_id="p", revision=1, digest="4" * 64),
        "run_config_digest": "5" * 64,
        "input_basis": Basis(
            stream_name="payments",
            partitions=(PartitionBasis(partition_id="0000", offset_kind=OffsetKind.EXCLUSIVE_NEXT, offset=5),),
        ),
    }
    in_force = PostureInForce(mode=Mode.NORMAL, sequence=0, position=CONTROL)
    lowering = None if mode is Mode.NORMAL else Lowering.FEATURES_LATE
    return DecisionRecord.model_validate(
        {
            "contract_version": "v1",
            "decision_id": loop_decision_id("e-1", BUNDLE.bundle, AT),
            "context_pins": PINS,
            "event_type": "card_payment",
            "event_id": "e-1",
            "event_position": AT,
            "as_of_time_utc": "2026-01-01T00:00:00Z",
            **(vector if mode is Mode.NORMAL else {}),
            "policy_rev": f"1.{'6' * 64}",
            "outcome": outcome,
            "decided_at_utc": "2026-01-01T00:00:01Z",
            "bundle": BUNDLE,
            "slot": slot,
            "posture": DecidedUnder(in_force=in_force, applied_mode=mode, lowering=lowering, fail_closed=Outcome.DECLINE),
            "reason_codes": ("BIG_AMOUNT",),
            **changes,
        }
    )


def test_a_declined_decision_holds_its_account_and_tells_the_webhook() -> None:
    hold, tell = wanted_actions([record(Outcome.DECLINE)], [HOLD, TELL])
    assert hold.target == FeatureKey(key_type=KeyType.ACCOUNT, key_id="acct-1")
    assert tell.target == WebhookTarget(webhook="payments")
    assert {(intent.actor, intent.origin.reference) for intent in (hold, tell)} == {
        (DECIDER, record(Outcome.DECLINE).decision_id)
    }
    assert hold.parameters == {"outcome": "decline", "event_id": "e-1", "reason_codes": ["BIG_AMOUNT"]}
    # the same decision wants the same, whoever asks again
    assert wanted_actions([record(Outcome.DECLINE)], [HOLD]) == [hold]


@pytest.mark.parametrize(
    "other",
    [
        record(Outcome.APPROVE),
        record(Outcome.REVIEW),
        record(Outcome.DECLINE, slot=Slot.SHADOW),
        record(Outcome.DECLINE, mode=Mode.FAIL_CLOSED),
    ],
)
def test_other_outcomes_shadows_and_modes_that_do_not_look_want_nothing(other: DecisionRecord) -> None:
    assert wanted_actions([other], [HOLD, TELL]) == []


def test_an_action_has_one_target() -> None:
    for target in ({}, {"key_type": "account", "webhook": "payments"}):
        with pytest.raises(ValidationError, match="an action has a key_type or a webhook"):
            DecidedAction.model_validate({"outcome": "decline", "action_type": "a", **target})
