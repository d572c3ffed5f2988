import pytest

from ofp_platform.vocabulary.errors import ContractError, ErrorCode, Reason, invalid, not_found, unavailable
from ofp_platform.vocabulary.identity import ContextPins

PINS = ContextPins(scenario_id="s1", run_id="r1", manifest_fingerprint="a" * 64, parameter_hash="b" * 64)


@pytest.mark.parametrize(
    ("make", "code", "retryable"),
    [
        (invalid, ErrorCode.INVALID_REQUEST, False),
        (not_found, ErrorCode.NOT_FOUND, False),
        (unavailable, ErrorCode.UNAVAILABLE, True),
    ],
)
def test_exactly_the_unavailable_ones_may_be_retried(make: type[ContractError], code: ErrorCode, retryable: bool) -> None:
    error = make(Reason.OVERLOADED, "what happened")
    assert (error.code, error.retryable, str(error)) == (code, retryable, "what happened")


def test_the_object_of_the_contract() -> None:
    assert invalid(Reason.INVALID_TIME, "no zone", PINS).wire() == {
        "kind": "error_response",
        "contract_version": "ofp_public_contracts_v0",
        "error_code": "INVALID_REQUEST",
        "reason": "INVALID_TIME",
        "message": "no zone",
        "retryable": False,
        "context_pins": PINS.wire(),
    }
    assert invalid(Reason.INVALID_TIME, "no zone").wire()["context_pins"] is None


def test_reasons_are_named_by_their_values() -> None:
    assert all(reason.value == reason.name for reason in Reason)
    assert all(code.value == code.name for code in ErrorCode)
