"""The base of every object that crosses a boundary: strict, closed, immutable."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ofp_platform.vocabulary.times import TIME_PATTERN, format_time, parse_time


class Model(BaseModel):
    """Strict types, no unknown fields, frozen."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def _canonical_time(text: str) -> str:
    return format_time(parse_time(text))


Time = Annotated[
    str,
    AfterValidator(_canonical_time),
    Field(json_schema_extra={"pattern": TIME_PATTERN}, description="RFC 3339, UTC with Z, at most 6 fractional digits"),
]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256, 64 lower-case hex digits")]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}$")]
