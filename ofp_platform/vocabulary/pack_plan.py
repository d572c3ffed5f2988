"""The plan of a new pack: what would become of each group, and what it would cost to build it beside the live one."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.catalogue import CatalogueReader
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.model import Digest, Identifier, Model, Name, Time
from ofp_platform.vocabulary.position import Basis, StreamName
from ofp_platform.vocabulary.serving import Count, Version


class GroupChange(StrEnum):
    """The fate of a group version: it comes, it goes, or it is served as before."""

    ADDED = "added"
    REMOVED = "removed"
    KEPT = "kept"


class PlannedGroup(Model):
    """One group version of either pack."""

    group_name: Name
    group_version: Name
    key_type: Name
    change: GroupChange = Field(strict=False)
    replaces: tuple[Name, ...] = Field(strict=False, description="versions of the group that are live and go")
    features: Count
    reach_us: Count = Field(description="its longest window and delay, microseconds")
    folded_from_utc: Time | None = Field(
        description="of a group that comes: the oldest event that a question of now counts; null where nothing was applied yet"
    )
    read_by: tuple[CatalogueReader, ...] = Field(default=(), strict=False)


class PlanEstimate(Model):
    """The cost, as far as it can be known before: measured here, and what was measured is said."""

    records: Count = Field(description="records of log and archive that are folded")
    state_bytes: Count = Field(description="of the live one (a sample of a large one) times the columns of the new pack over its")
    records_per_second: Annotated[int, Field(ge=1)] | None = Field(description="null where nothing could be measured")
    measured: str = Field(min_length=1, description="what the rate was measured on")

    @property
    def seconds(self) -> float | None:
        """The time of a build that has the machine for itself."""
        return None if self.records_per_second is None else self.records / self.records_per_second


class PackPlan(Model):
    """A new pack beside the live one. Its digest is over everything that decides what is done, not over what it may cost."""

    kind: Literal["pack_plan"] = "pack_plan"
    contract_version: Version = "v0"
    stream_name: StreamName
    context_pins: ContextPins
    run_config_digest: Digest
    live_projection: Count
    live_registry: Digest
    new_registry: Digest
    pack_id: Identifier
    revision: Count
    changed_events: tuple[str, ...] = Field(strict=False, description="event types that one of the packs reads otherwise")
    groups: tuple[PlannedGroup, ...] = Field(strict=False)
    basis: Basis = Field(description="of the live one")
    readers_known: bool = Field(description="whether all datasets and models were looked at, and the newest decisions")
    estimate: PlanEstimate
    planned_at_utc: Time

    @property
    def unchanged(self) -> bool:
        """Whether the pack is the live one."""
        return self.live_registry == self.new_registry

    def wire(self) -> dict[str, Any]:
        """As stored."""
        return self.model_dump(mode="json")

    def digest(self) -> str:
        """The identity of the plan."""
        content = self.model_dump(mode="json", exclude={"basis", "estimate", "planned_at_utc", "readers_known"})
        for group in content["groups"]:
            del group["read_by"], group["folded_from_utc"]
        return digest_of(content)
