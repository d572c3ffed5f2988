"""decision.yaml, beside a pack of one's own: what is asked about an event, and the rule that decides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ofp_platform.decisions.decision_point import DecisionPoint
from ofp_platform.decisions.rule import PointsRule
from ofp_platform.vocabulary.envelope import EventType
from ofp_platform.vocabulary.identity import KeySource, KeyType
from ofp_platform.vocabulary.model import Model
from ofp_platform.vocabulary.serving import FeatureGroupRef
from ofp_platform.vocabulary.yaml_file import YamlFault, load_yaml

FILE_NAME = "decision.yaml"
_FieldName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]


class DecisionFileError(Exception):
    """The file cannot be used; the text says what is wrong, and where."""


class _DecisionFile(Model):
    event_type: EventType
    key_fields: Mapping[Annotated[KeyType, Field(strict=False)], KeySource] = Field(min_length=1)
    groups: tuple[FeatureGroupRef, ...] = Field(strict=False, min_length=1)
    context_fields: tuple[_FieldName, ...] = Field(default=(), strict=False)
    rule: PointsRule


def load_decision_point(path: Path) -> DecisionPoint:
    """Read and validate the file.

    Raises:
        DecisionFileError: no such file, not YAML, or a field that is wrong; the text names file and field.
    """
    try:
        file = load_yaml(path, _DecisionFile)
        return DecisionPoint(
            event_type=file.event_type,
            key_fields={kind.value: name for kind, name in file.key_fields.items()},
            groups=tuple((group.group_name, group.group_version) for group in file.groups),
            context_fields=file.context_fields,
            rule=file.rule,
        )
    except YamlFault as error:
        raise DecisionFileError(str(error)) from None
    except ValueError as error:
        raise DecisionFileError(f"{path}: {error}") from None
