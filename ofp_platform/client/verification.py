"""The snapshot hash of a response, recomputed from the response alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ofp_platform.client.answer import AnswerNotTrusted
from ofp_platform.vocabulary.model import Model
from ofp_platform.vocabulary.serving import GetFeaturesResponse
from ofp_platform.vocabulary.snapshot_hash import hashed_object, snapshot_hash


def hashed_of(response: GetFeaturesResponse) -> dict[str, Any]:
    """The object that the snapshot hash is over, rebuilt from a response alone."""
    provenance = response.provenance
    question = provenance.requested
    return hashed_object(
        context_pins=provenance.context_pins.wire(),
        as_of_time_utc=question.as_of_time_utc,
        feature_keys=_wire(question.feature_keys),
        feature_groups=_wire(question.feature_groups),
        registry_digest=provenance.feature_definition_set.digest,
        run_config_digest=provenance.run_config_digest,
        values=_wire(response.snapshot.by_key),
        freshness=_wire(provenance.freshness),
        warnings=[each.model_dump(mode="json", exclude_none=True) for each in provenance.warnings],
        input_basis=provenance.input_basis.model_dump(mode="json"),
        graph_version=None if provenance.graph_version is None else provenance.graph_version.model_dump(mode="json"),
        request_context=question.request_context,
    )


def _wire(objects: Sequence[Model]) -> list[dict[str, Any]]:
    return [each.model_dump(mode="json") for each in objects]


def verify(response: GetFeaturesResponse) -> str:
    """The snapshot hash, recomputed from the response alone and held against the one that it states.

    Raises:
        AnswerNotTrusted: they differ, or the snapshot and its provenance do not speak of one hash, run and instant.
    """
    stated_hash = response.provenance.feature_snapshot_hash
    recomputed_hash = snapshot_hash(hashed_of(response))
    if recomputed_hash != stated_hash:
        raise AnswerNotTrusted(f"the response states the hash {stated_hash}; its content has {recomputed_hash}")
    snapshot, provenance = response.snapshot, response.provenance
    for name, stated_hashes, proven in (
        ("hash", snapshot.feature_snapshot_hash, recomputed_hash),
        ("run", snapshot.context_pins, provenance.context_pins),
        ("instant", snapshot.as_of_time_utc, provenance.requested.as_of_time_utc),
    ):
        if stated_hashes != proven:
            raise AnswerNotTrusted(f"the snapshot is of another {name} than its provenance")
    return recomputed_hash
