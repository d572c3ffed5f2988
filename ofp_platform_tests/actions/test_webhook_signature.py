"""Signatures as Standard Webhooks has them: its own example, and what must not pass."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.actions.webhook_signature import SecretFault, SignatureRefused, parse_secret, signed_headers, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE_ID, TIMESTAMP, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'


def test_the_example_of_the_specification() -> None:
    assert signed_headers(parse_secret(SECRET), MESSAGE_ID, TIMESTAMP, BODY) == {
        "webhook-id": MESSAGE_ID,
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@given(body=st.binary(max_size=100), key=st.binary(min_size=24, max_size=64), late=st.integers(-300, 300))
def test_what_was_signed_verifies_and_nothing_near_it(body: bytes, key: bytes, late: int) -> None:
    headers = signed_headers(key, "id", 1_000_000, body)
    assert verify(key, headers, body, 1_000_000 + late) == "id"
    rotated = {**headers, "webhook-signature": f"v1,AAAA v2,x {headers['webhook-signature']}"}
    assert verify(key, rotated, body, 1_000_000) == "id"
    for wrong in (
        (key, headers, body + b" ", 1_000_000),
        (key[:-1] + bytes([key[-1] ^ 1]), headers, body, 1_000_000),
        (key, {**headers, "webhook-id": "other"}, body, 1_000_000),
        (key, {**headers, "webhook-timestamp": "1000001"}, body, 1_000_000),
        (key, headers, body, 1_000_301),
        (key, headers, body, 999_699),
        (key, {**headers, "webhook-signature": headers["webhook-signature"].replace("v1", "v2")}, body, 1_000_000),
        (key, {**headers, "webhook-signature": "v1,\u00e9"}, body, 1_000_000),
        (key, {**headers, "webhook-timestamp": "\u0663"}, body, 1_000_000),
        *((key, {name: text for name, text in headers.items() if name != left_out}, body, 1_000_000) for left_out in headers),
    ):
        with pytest.raises(SignatureRefused):
            verify(*wrong)


@pytest.mark.parametrize(
    "text",
    ["", "whsec_", SECRET.removeprefix("whsec_"), "whsec_%%%", "whsec_\u00e9", f"whsec_{base64.b64encode(b'x' * 23).decode()}"],
)
def test_what_is_no_secret(text: str) -> None:
    with pytest.raises(SecretFault) as fault:
        parse_secret(text)
    assert len(text) < 10 or text not in str(fault.value)
