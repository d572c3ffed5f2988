"""Label assertions: their identity, and what is none."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion

CONTENT: dict[str, Any] = {
    "event_class": "card_payment",
    "event_id": "payment-1",
    "label_type": "fraud",
    "value": 1,
    "effective_time_utc": "2026-01-01T00:00:00Z",
    "observed_time_utc": "2026-01-08T00:00:00Z",
    "source": "desk",
}


def test_the_id_is_the_digest_of_the_wire_form() -> None:
    one = LabelAssertion(**CONTENT)
    assert one.wire() == one.model_dump(mode="json")
    assert one.assertion_id == digest_of({"kind": "label_assertion", "contract_version": "v0", **CONTENT})
    # one canonical text per time, so another spelling is the same assertion
    assert LabelAssertion(**{**CONTENT, "observed_time_utc": "2026-01-08T00:00:00.000Z"}).assertion_id == one.assertion_id


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("event_class", "login"),
        ("event_id", "payment-2"),
        ("label_type", "dispute"),
        ("value", 0),
        ("effective_time_utc", "2026-01-01T00:00:01Z"),
        ("observed_time_utc", "2026-01-08T00:00:00.000001Z"),
        ("source", "bank"),
    ],
)
def test_every_field_is_part_of_it(name: str, value: Any) -> None:
    assert LabelAssertion(**{**CONTENT, name: value}).assertion_id != LabelAssertion(**CONTENT).assertion_id


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("value", True),
        ("value", 1.0),
        ("value", "1"),
        ("value", 2**53),
        ("event_class", "Card payment"),
        ("event_id", ""),
        ("event_id", "a,b"),
        ("event_id", "payment-4111111111111111"),
        ("source", "desk:4111.1111.1111.1111"),
        ("observed_time_utc", "2026-01-08"),
        ("kind", "label"),
        ("other", 1),
    ],
)
def test_what_is_no_assertion(name: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        LabelAssertion(**{**CONTENT, name: value})
