"""The report on a challenger: a model trained again, held against the policy of retraining and against the model in force."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform.vocabulary.loop.bundle import BundleRef, BundleScope
from ofp_platform.vocabulary.model import Digest, Model, Name
from ofp_platform.vocabulary.retraining_policy import Metric, RetrainingPolicy
from ofp_platform.vocabulary.serving import Count, Version

RuleName = Literal["training_set", "holdout", "model_in_force", "at_least", "behind_active_at_most", "bundle"]


class GateRule(Model):
    """One rule of the gate: what was asked for and what was seen, as a person reads it."""

    rule: RuleName
    metric: Metric | None = None
    asked: str = Field(min_length=1)
    seen: str = Field(min_length=1)
    passed: bool


class ChallengerReport(Model):
    """Whether a challenger may be published, and why. What is absent failed a rule: none of them was left out."""

    kind: Literal["challenger_report"] = "challenger_report"
    contract_version: Version = "v0"
    dataset_name: Name
    dataset_identity: Digest
    manifest_digest: Digest
    policy: RetrainingPolicy
    scope: BundleScope
    in_force: BundleRef | None = Field(description="the bundle that was in force in the scope; null: nothing was")
    test_rows: Count
    test_frauds: Count
    model_digest: Digest | None = Field(description="null: nothing could be trained")
    eval_report: Digest | None
    challenger: BundleRef | None = Field(description="the bundle that comes of it; null: none does")
    rules: tuple[GateRule, ...] = Field(strict=False, min_length=1)

    @property
    def has_passed(self) -> bool:
        """Whether there is a bundle, and every rule passed."""
        return self.challenger is not None and all(rule.passed for rule in self.rules)

    @property
    def problems(self) -> list[str]:
        """Each rule that did not pass, in words."""
        return [rule_words(rule) for rule in self.rules if not rule.passed]

    def stored(self) -> bytes:
        """The canonical bytes of it all."""
        return canonical_bytes(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        """SHA-256 over `stored`."""
        return sha256_hex(self.stored())


def rule_words(rule: GateRule) -> str:
    """A rule in one line."""
    name = rule.rule if rule.metric is None else f"{rule.rule}, {rule.metric}"
    return f"{name}: asked for {rule.asked}, seen {rule.seen}"
