"""A recorded decision, made again from the snapshot and the rule that its record names by digest."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from ofp_platform.decisions.rule import PointsRule
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.serving import KeyValues, SnapshotRecord


@dataclass(frozen=True)
class Redecision:
    """`equal`: whether score and outcome are those of the record."""

    rule: PointsRule
    score: int
    outcome: Outcome
    equal: bool


class NotRedecided(Exception):
    """The decision cannot be made again, and the text says what is missing or wrong."""


def decide_again(record: DecisionRecord, snapshot: SnapshotRecord, rule_text: str | None) -> Redecision:
    """Apply the stored rule (its canonical text; None: it is not stored) to the stored snapshot, whose hash is verified.

    Raises:
        NotRedecided: the rule is not stored, or not the one that the record names, or cannot read the snapshot; the snapshot is
            another one.
    """
    if snapshot.feature_snapshot_hash != record.feature_snapshot_hash:
        raise NotRedecided(f"snapshot {snapshot.feature_snapshot_hash} is not the one of decision {record.decision_id}")
    if record.rule is None:
        raise NotRedecided(f"decision {record.decision_id} was made by a bundle: `ofp decision replay` makes it again")
    name = f"rule {record.rule.rule_name} {record.rule.rule_version}"
    if rule_text is None:
        raise NotRedecided(f"{name} ({record.rule.digest}) is not stored: whoever sent the decision keeps it")
    if sha256_hex(rule_text.encode("utf-8")) != record.rule.digest:
        raise NotRedecided(f"{name} is stored with another content than {record.rule.digest}")
    try:
        rule = PointsRule.model_validate_json(rule_text)
        by_key = tuple(KeyValues.model_validate(values) for values in snapshot.hashed["values"])
        score, outcome = rule.decide(by_key)
    except ValidationError as error:
        raise NotRedecided(f"{name} or the snapshot cannot be read here: {error.errors()[0]['msg']}") from None
    except (KeyError, ValueError) as error:
        raise NotRedecided(f"{name} cannot be applied to the snapshot: {error}") from None
    return Redecision(rule, score, outcome, (score, outcome) == (record.score, record.outcome))
