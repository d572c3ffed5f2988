"""The question to the plane about one event, as a bundle asks it under a mode."""

from __future__ import annotations

from collections.abc import Sequence

from ofp_platform.client import make_request
from ofp_platform.decisions.event_reader import ReadEvent
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.bundle import Bundle
from ofp_platform.vocabulary.observed_keys import with_observed_keys
from ofp_platform.vocabulary.serving import FeatureGroupRef, GetFeaturesRequest
from ofp_platform.vocabulary.times import format_time


def vector_request(
    bundle: Bundle, groups: Sequence[FeatureGroupRef], event: ReadEvent, pins: ContextPins
) -> GetFeaturesRequest | None:
    """The question: the event's keys, as of its own time, with the event itself in the basis.

    None where the payload lacks what is needed: such an event was not applied either.
    """
    names = {key_type.value: source for key_type, source in bundle.key_fields.items()}
    payload = with_observed_keys(event.payload, {name: key_type for key_type, name in names.items()})
    if not all(isinstance(payload.get(name), str) for name in names.values()):
        return None
    if not all(type(payload.get(name)) in (int, str) for name in bundle.context_fields):
        return None
    try:
        return make_request(
            context_pins=pins,
            feature_keys=[(key_type, payload[name]) for key_type, name in names.items()],
            feature_groups=[(group.group_name, group.group_version) for group in groups],
            as_of_time_utc=format_time(event.ts),
            request_context={name: payload[name] for name in bundle.context_fields} or None,
            at_least_basis=[event.position],
            request_id=event.event_id,
        )
    except ContractError:
        return None
