"""The base of every object that crosses a boundary: strict, closed, immutable."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ofp_platform.vocabulary.raw_identifier import without_raw_identifier
from ofp_platform.vocabulary.times import TIME_PATTERN, format_time, parse_time


class Model(BaseModel):
    """Strict types, no unknown fields, frozen."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def _canonical_time(text: str) -> str:
    return format_time(parse_time(text))


def _day(text: str) -> str:
    date.fromisoformat(text)
    return text


Time = Annotated[
    str,
    AfterValidator(_canonical_time),
    Field(json_schema_extra={"pattern": TIME_PATTERN}, description="RFC 3339, UTC with Z, at most 6 fractional digits"),
]
Day = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", description="as in 2026-01-31"), AfterValidator(_day)]
DIGEST_PATTERN = "^[0-9a-f]{64}$"
NAME_PATTERN = "^[a-z][a-z0-9_]{0,62}$"
IDENTIFIER_PATTERN = "^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}$"
Digest = Annotated[str, Field(pattern=DIGEST_PATTERN, description="SHA-256, 64 lower-case hex digits")]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
PolicyRev = Annotated[
    str,
    Field(pattern=r"^[1-9][0-9]*\.[0-9a-f]{64}$", description="the policy in force: its revision, and the SHA-256 of all of it"),
]
Identifier = Annotated[str, Field(pattern=IDENTIFIER_PATTERN)]
SafeIdentifier = Annotated[Identifier, AfterValidator(without_raw_identifier)]
"""An identifier that no log has looked at for card numbers."""
_DIGEST = re.compile(DIGEST_PATTERN, re.ASCII)


def is_digest(text: str) -> bool:
    """Whether the text is 64 lower-case hex digits and nothing else."""
    return _DIGEST.fullmatch(text) is not None
