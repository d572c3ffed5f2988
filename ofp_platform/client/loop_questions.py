"""Requests about decisions, cases and actions: what is wrong is refused before it goes over the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import ValidationError

from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.action_requests import ActionSettlementAsk
from ofp_platform.vocabulary.loop.case_requests import CaseEntryAsk, CaseTriggerAsk, LabelAsk
from ofp_platform.vocabulary.raw_identifier import raw_identifier_in


def envelope_body(envelope: Mapping[str, Any]) -> bytes:
    """The bytes of one event.

    Raises:
        ContractError: INVALID_FIELD; it holds what JSON has no form for.
    """
    try:
        return orjson.dumps(dict(envelope))
    except TypeError:
        raise invalid(Reason.INVALID_FIELD, "an event is made of texts, numbers, true, false, null, lists and dicts") from None


def case_body(ask: CaseTriggerAsk | CaseEntryAsk) -> bytes:
    """The bytes of a trigger or of an entry."""
    return canonical_bytes(ask.model_dump(mode="json") | {"context_pins": ask.context_pins.wire()})


def label_body(context_pins: ContextPins, label: LabelAsk, source_ref: str) -> bytes:
    """The bytes of the entry that asserts a label.

    Raises:
        ContractError: INVALID_FIELD; RAW_IDENTIFIER.
    """
    try:
        return case_body(CaseEntryAsk(context_pins=context_pins, source_ref=source_ref, content=label))
    except ValidationError as error:
        raise _wrong(error, {"source_ref": source_ref}, context_pins) from None


def settlement_body(context_pins: ContextPins, reason: str, *, is_done: bool) -> bytes:
    """The bytes of a word about an action.

    Raises:
        ContractError: INVALID_FIELD; RAW_IDENTIFIER.
    """
    try:
        ask = ActionSettlementAsk(context_pins=context_pins, is_done=is_done, reason=reason)
    except ValidationError as error:
        raise _wrong(error, {"reason": reason}, context_pins) from None
    return canonical_bytes(ask.model_dump(mode="json") | {"context_pins": context_pins.wire()})


def _wrong(error: ValidationError, texts: Mapping[str, str], pins: ContextPins) -> ContractError:
    for field, text in texts.items():
        if raw_identifier_in(text) is not None:
            return invalid(Reason.RAW_IDENTIFIER, f"{field}: a raw identifier never leaves; send the entity id", pins)
    where = ".".join(str(part) for part in error.errors(include_url=False, include_input=False)[0]["loc"])
    return invalid(Reason.INVALID_FIELD, f"{where}: not valid", pins)
