"""The action policy applied to an intent: whether it is allowed, and who does it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ofp_platform.vocabulary.identity import KeyType
from ofp_platform.vocabulary.loop.action import HOLD_ACCOUNT, RELEASE_ACCOUNT, ActionIntent, WebhookTarget
from ofp_platform.vocabulary.loop.action_policy import ACCOUNT_HOLD, NO_EXECUTOR, ActionPolicy
from ofp_platform.vocabulary.yaml_file import YamlFault, model_of, read_yaml


class ActionPolicyUnusable(Exception):
    """There is no action policy, or it is wrong: then nothing is allowed and nothing done. The text says where and what to do."""


def load_action_policy(path: Path) -> ActionPolicy:
    """The policy in a file.

    Raises:
        ActionPolicyUnusable: see there.
    """
    try:
        advice = ": without an action policy nothing is done (docs/actions.md has one to begin with)"
        return model_of(path, read_yaml(path, advice), ActionPolicy)
    except YamlFault as fault:
        raise ActionPolicyUnusable(str(fault)) from None


def executor_of(intent: ActionIntent, webhooks: Collection[str]) -> str:
    """The name of who does an intent: the webhook that it names, the holds that the plane keeps, or `NO_EXECUTOR`."""
    if isinstance(intent.target, WebhookTarget):
        return intent.target.webhook if intent.target.webhook in webhooks else NO_EXECUTOR
    is_hold = intent.action_type in (HOLD_ACCOUNT, RELEASE_ACCOUNT) and intent.target.key_type is KeyType.ACCOUNT
    return ACCOUNT_HOLD if is_hold else NO_EXECUTOR


def denial_of(intent: ActionIntent, policy: ActionPolicy) -> str | None:
    """Why an intent is denied, in words; None: it is allowed, and somebody can do it."""
    if not policy.allows(intent.actor, intent.action_type, intent.scope):
        return f"NOT_ALLOWED: no entry for {intent.actor}, {intent.action_type}, {intent.scope} in revision {policy.revision}"
    if executor_of(intent, policy.webhooks) == NO_EXECUTOR:
        return f"NO_EXECUTOR: nobody does {intent.action_type} on {intent.scope} in revision {policy.revision}"
    return None
