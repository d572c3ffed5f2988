"""The operations that put packs live or went back, as the service shows them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ofp_platform.vocabulary.model import Model
from ofp_platform.vocabulary.offline.governance_fact import PackOperation
from ofp_platform.vocabulary.serving import Version


class PackOperations(Model):
    """A page of the steps of all operations of the run that is served, the newest first."""

    kind: Literal["ofp_pack_operations"] = "ofp_pack_operations"
    contract_version: Version = "v0"
    steps: tuple[PackOperation, ...] = Field(strict=False)
    next_cursor: str | None = Field(description="leads to the steps before it; null: there are none")
