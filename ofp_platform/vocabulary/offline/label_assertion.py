"""Label assertions about events, after the fact. Never changed: better knowledge is another assertion."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ofp_platform.vocabulary.canonical import MAX_INTEGER, digest_of
from ofp_platform.vocabulary.envelope import EventType
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.model import Model, Name, SafeIdentifier, Time
from ofp_platform.vocabulary.serving import Version

LabelValue = Annotated[
    int,
    Field(ge=-MAX_INTEGER, le=MAX_INTEGER, description="an integer; of a yes-or-no label 1 is yes and 0 is no, never a boolean"),
]


class LabelAssertion(Model):
    """One statement about one event of the run in whose label store it stands.

    The event is named by class and id: events of two classes may share an id. `effective_time_utc`: since when it is true;
    `observed_time_utc`: since when `source` knew it. It counts as of a time by when it was observed, and as observed no earlier
    than it was admitted: of a report in the log, when the record was; else when it was appended to the label store.
    """

    kind: Literal["label_assertion"] = "label_assertion"
    contract_version: Version = "v0"
    event_class: EventType
    event_id: SafeIdentifier
    label_type: Name
    value: LabelValue
    effective_time_utc: Time
    observed_time_utc: Time
    source: SafeIdentifier

    def wire(self) -> dict[str, Any]:
        """As it crosses a boundary."""
        # faster than model_dump, and the same: every field is an integer or a text
        return dict(self.__dict__)

    @property
    def assertion_id(self) -> str:
        """SHA-256 of the canonical content: the same statement is one assertion, however often it is made."""
        return digest_of(self.wire())


class LabelAssertions(Model):
    """Assertions about events of one run, appended all or none."""

    kind: Literal["label_assertions"] = "label_assertions"
    contract_version: Version = "v0"
    context_pins: ContextPins
    assertions: tuple[LabelAssertion, ...] = Field(strict=False, min_length=1)


class LabelReceipt(Model):
    """Assertions are appended: how many were new, and how many were there before (repeats included)."""

    kind: Literal["label_receipt"] = "label_receipt"
    contract_version: Version = "v0"
    new_count: Annotated[int, Field(ge=0)]
    known_count: Annotated[int, Field(ge=0)]
