"""Where decisions are made: on which events, which features are asked for, which rule decides. Two ship with the packs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ofp_platform.client import make_request
from ofp_platform.decisions.event_reader import ReadEvent
from ofp_platform.decisions.rule import Condition, PointsRule
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.observed_keys import with_observed_keys
from ofp_platform.vocabulary.serving import GetFeaturesRequest
from ofp_platform.vocabulary.times import format_time


@dataclass(frozen=True)
class DecisionPoint:
    """`key_fields`: key type to the payload field with its id, or to an observed identifier (see `observed_keys`);
    `groups`: (name, version), of those key types;
    `context_fields`: payload fields that go into the request context."""

    event_type: str
    key_fields: Mapping[str, str]
    groups: tuple[tuple[str, str], ...]
    context_fields: tuple[str, ...]
    rule: PointsRule

    def __post_init__(self) -> None:
        if missing := self.rule.groups - set(self.groups):
            raise ValueError(f"rule {self.rule.rule_name} reads groups that are not asked for: {sorted(missing)}")

    def request(self, event: ReadEvent, pins: ContextPins) -> GetFeaturesRequest | None:
        """The question of a decision: the event's keys, as of its own time, with the event itself in the basis.

        None where the payload lacks what is needed: such an event was not applied either.
        """
        payload = with_observed_keys(event.payload, {name: key_type for key_type, name in self.key_fields.items()})
        if not all(isinstance(payload.get(name), str) for name in self.key_fields.values()):
            return None
        if not all(type(payload.get(name)) in (int, str) for name in self.context_fields):
            return None
        try:
            return make_request(
                context_pins=pins,
                feature_keys=[(key_type, payload[name]) for key_type, name in self.key_fields.items()],
                feature_groups=self.groups,
                as_of_time_utc=format_time(event.ts),
                request_context={name: payload[name] for name in self.context_fields} or None,
                at_least_basis=[event.position],
                request_id=event.event_id,
            )
        except ContractError:
            return None


def _points(group: str, feature: str, at_least: int | str, points: int) -> Condition:
    return Condition(group_name=group, group_version="v1", feature=feature, at_least=at_least, points=points)


CARD_PAYMENTS = DecisionPoint(
    event_type="card_payment",
    key_fields={
        "account": "account_id",
        "card": "card_id",
        "customer": "customer_id",
        "device": "device_id",
        "merchant": "merchant_id",
    },
    groups=(
        ("account_activity", "v1"),
        ("account_amount", "v1"),
        ("card_activity", "v1"),
        ("customer_activity", "v1"),
        ("device_activity", "v1"),
        ("merchant_activity", "v1"),
        ("merchant_risk", "v1"),
    ),
    context_fields=("amount_minor",),
    rule=PointsRule(
        rule_name="card_velocity",
        rule_version="v1",
        conditions=(
            _points("card_activity", "count_5m", 3, 30),
            _points("card_activity", "count_1h", 6, 30),
            _points("card_activity", "declined_ratio_1h", "0.5", 20),
            _points("account_amount", "amount_over_mean_30d", "4.0", 30),
            _points("device_activity", "distinct_cards_24h", 3, 20),
            _points("merchant_risk", "risk_7d", "0.05", 40),
        ),
        review_from=30,
        decline_from=60,
    ),
)
HANDBOOK = DecisionPoint(
    event_type="transaction",
    key_fields={"account": "customer_id", "merchant": "terminal_id"},
    groups=(("account_activity", "v1"), ("merchant_risk", "v1")),
    context_fields=(),
    rule=PointsRule(
        rule_name="terminal_risk",
        rule_version="v1",
        conditions=(
            _points("merchant_risk", "risk_1d", "0.5", 30),
            _points("merchant_risk", "risk_7d", "0.5", 30),
            _points("merchant_risk", "risk_30d", "0.2", 30),
            _points("account_activity", "count_1d", 8, 10),
        ),
        review_from=30,
        decline_from=60,
    ),
)
SHIPPED = {"card_payments": CARD_PAYMENTS, "handbook": HANDBOOK}
"""By the id of the pack whose groups they ask for."""
