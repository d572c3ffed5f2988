"""The content of a snapshot's hash: one definition for serving, client, offline and auditors."""

from __future__ import annotations

from typing import Any, Literal

from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex

CONTRACT_VERSION: Literal["ofp_public_contracts_v0"] = "ofp_public_contracts_v0"
"""Of every object of the serving boundary, and of what a snapshot's hash is over."""


def hashed_object(
    *,
    context_pins: Any,
    as_of_time_utc: Any,
    feature_keys: Any,
    feature_groups: Any,
    registry_digest: Any,
    run_config_digest: Any,
    values: Any,
    freshness: Any,
    warnings: Any,
    input_basis: Any,
    graph_version: Any = None,
    request_context: Any = None,
) -> dict[str, Any]:
    """The object whose RFC 8785 bytes are hashed.

    Args:
        values: `snapshot.by_key`.
        graph_version: the object of the contract, only if the IEG was consulted (None: no part of the object).
        request_context: only if on-demand features used it (None: no part of the object).
    """
    body = {
        "contract_version": CONTRACT_VERSION,
        "context_pins": context_pins,
        "as_of_time_utc": as_of_time_utc,
        "feature_keys": feature_keys,
        "feature_groups": feature_groups,
        "registry_digest": registry_digest,
        "run_config_digest": run_config_digest,
        "values": values,
        "freshness": freshness,
        "warnings": warnings,
        "input_basis": input_basis,
    }
    if graph_version is not None:
        body["graph_version"] = graph_version
    if request_context is not None:
        body["request_context"] = request_context
    return body


def snapshot_hash(hashed: dict[str, Any]) -> str:
    """SHA-256 (hex) over the canonical bytes of a `hashed_object`."""
    return sha256_hex(canonical_bytes(hashed))
