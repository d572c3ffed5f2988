"""reports.yaml, beside a pack of one's own: which events of the log are labels of earlier ones, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ofp_platform.offline.labels.label_sources import ReportRule
from ofp_platform.registry.models import EventRouting, PayloadField, event_class
from ofp_platform.registry.shape import suggestion
from ofp_platform.vocabulary.envelope import EventType
from ofp_platform.vocabulary.model import Model, Name
from ofp_platform.vocabulary.offline.label_assertion import LabelValue
from ofp_platform.vocabulary.yaml_file import YamlFault, load_yaml

FILE_NAME = "reports.yaml"


class ReportFileError(Exception):
    """The file cannot be used; the text says what is wrong, and where."""


class _ReportFile(Model):
    """Events of `event_type` say `value` about the event of `about_type` whose id their payload field `about_field` holds."""

    event_type: EventType
    about_type: EventType
    about_field: PayloadField
    label_type: Name
    value: Annotated[LabelValue, Field(description="as in 1: fraud")] = 1


def load_report_rule(path: Path, events: Mapping[str, EventRouting]) -> ReportRule:
    """Read and validate the file; `events` are those of the pack.

    Raises:
        ReportFileError: no such file, not YAML, a field that is wrong, or an event type that the pack does not know.
    """
    try:
        file = load_yaml(path, _ReportFile)
    except YamlFault as error:
        raise ReportFileError(str(error)) from None
    for name in ("event_type", "about_type"):
        event_type = getattr(file, name)
        if event_type not in events:
            raise ReportFileError(f"{path}: {name}: the pack knows no {event_type}{suggestion(event_type, events)}")
    about_class = event_class(events, file.about_type)
    return ReportRule(file.event_type, about_class, file.about_field, file.label_type, file.value)
