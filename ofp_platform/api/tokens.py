"""Tokens of issuers (JWT): whether one is genuine and of now, and which principal it makes of who sends it.

A token says who signed it, by which algorithm and key; nothing of that is believed: issuer, algorithms and keys are those that
the file of principals names. Where keys could be had (`jku`, `x5u`, `jwk` in its head) is not looked at.
"""

from __future__ import annotations

import math
from typing import Any

import jwt
from jwt.types import Options
from pydantic import ValidationError

from ofp_platform.api.principals import Issuer, Principal, RunPins, Scope
from ofp_platform.api.signing_keys import KeySet
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid

MOST_BYTES = 8_192
_LATEST = 2**53
# times are checked here, by the clock of the service
_CHECKS: Options = {
    "require": ["exp", "iss", "aud"],
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_sub": False,
    "verify_jti": False,
}
_MALFORMED = "it is no JWT that can be read"


class UnknownKey(Exception):
    """A token is signed by a key that is not among those of its issuer."""


def token_refusal(why: str) -> ContractError:
    """The refusal of a token."""
    return invalid(Reason.UNAUTHENTICATED, f"the token is refused: {why}")


def unverified_claims(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Head and claims of a token that anybody may have made.

    Raises:
        ContractError: UNAUTHENTICATED.
    """
    if len(token) > MOST_BYTES:
        raise token_refusal(f"it is longer than {MOST_BYTES} bytes")
    try:
        whole = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise token_refusal(_MALFORMED) from None
    return whole["header"], whole["payload"]


def principal_of_token(token: str, head: dict[str, Any], issuer: Issuer, key_set: KeySet, now: float) -> tuple[Principal, float]:
    """The principal that a token with this head names, and until when (seconds since 1970, as `now`).

    Raises:
        ContractError: UNAUTHENTICATED.
        UnknownKey: its issuer has no such key, as far as is known.
    """
    algorithm, key_id = head.get("alg"), head.get("kid")
    if algorithm not in issuer.algorithms:
        raise token_refusal("its algorithm is none that is taken of its issuer")
    if not isinstance(key_id, str) or "crit" in head:
        raise token_refusal("its head names no key (kid), or something critical that is not known")
    key = key_set.keys.get((key_id, algorithm))
    if key is None:
        raise UnknownKey
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=issuer.audiences,
            issuer=issuer.issuer,
            options=_CHECKS,
        )
    except jwt.InvalidAudienceError:
        raise token_refusal("it is for another audience") from None
    except jwt.MissingRequiredClaimError as error:
        raise token_refusal(f"it has no claim {error.claim}") from None
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise token_refusal("its signature or its issuer is not the right one") from None
    until = _checked_times(claims, issuer, now)
    return _principal(claims, issuer), until


def _checked_times(claims: dict[str, Any], issuer: Issuer, now: float) -> float:
    skew = issuer.clock_skew_seconds
    end = _moment(claims, "exp")
    if end + skew <= now:
        raise token_refusal("it has expired")
    if end > now + skew + issuer.longest_token_seconds:
        raise token_refusal(f"it is valid for longer than {issuer.longest_token_seconds} s, which its issuer may not give")
    for name in ("nbf", "iat"):
        if name in claims and _moment(claims, name) > now + skew:
            raise token_refusal(f"it is not valid yet ({name})")
    return end + skew


def _moment(claims: dict[str, Any], name: str) -> float:
    value = claims[name]
    if type(value) not in (int, float) or not 0 <= value < _LATEST or not math.isfinite(value):
        raise token_refusal(f"its claim {name} is no time")
    return float(value)


def _principal(claims: dict[str, Any], issuer: Issuer) -> Principal:
    subject = claims.get(issuer.name_claim)
    if not isinstance(subject, str) or not subject:
        raise token_refusal(f"it has no claim {issuer.name_claim}")
    if subject in issuer.denied_names:
        raise token_refusal("whom it names is let in no more")
    scopes: dict[Scope, None] = {}
    for value in _texts(claims, issuer.scope_claim):
        scopes.update(dict.fromkeys(issuer.scopes.get(value, ())))
    runs = issuer.runs if issuer.run_claim is None else _runs_of_both(issuer.runs, _texts(claims, issuer.run_claim))
    try:
        return Principal(name=f"{issuer.name}:{subject}", scopes=tuple(scopes), runs=runs)
    except ValidationError:
        raise token_refusal(f"its claim {issuer.name_claim} is no name that a principal may have") from None


def _texts(claims: dict[str, Any], name: str) -> list[str]:
    value = claims.get(name, [])
    if isinstance(value, str):
        return value.split()
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return value
    raise token_refusal(f"its claim {name} is neither a text nor a list of texts")


def _runs_of_both(runs: Any, run_ids: list[str]) -> tuple[RunPins, ...]:
    """The runs of both: of the issuer, and of the token."""
    bounds = [{}] if runs == "*" else [run.model_dump(exclude_none=True) for run in runs]
    try:
        return tuple(
            RunPins.model_validate({**pins, "run_id": run_id})
            for run_id in run_ids
            for pins in bounds
            if pins.get("run_id", run_id) == run_id
        )
    except ValidationError:
        raise token_refusal("it names a run that is none") from None
