"""The law of published groups: the same (group, version) with another content is refused for good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ofp_platform.registry.models import Pack
from ofp_platform.registry.pack import group_digests


@dataclass(frozen=True)
class GroupRefusal:
    """A group version that was published before with another content. Digests are SHA-256, hex."""

    group_name: str
    group_version: str
    published: str
    offered: str

    def __str__(self) -> str:
        return (
            f"group {self.group_name} {self.group_version} was published with another content "
            f"({self.published[:12]}, now {self.offered[:12]}); publish the change as another version"
        )


def check(published: Mapping[tuple[str, str], str], pack: Pack) -> list[GroupRefusal]:
    """Hold a pack against every group version ever published.

    Args:
        published: (group_name, group_version) to content digest (`pack.group_digest`).
        pack: what is to be published.

    Returns:
        One refusal per changed group version, in order; empty when the pack may be published.
    """
    return [
        GroupRefusal(name, version, published[name, version], digest)
        for (name, version), digest in group_digests(pack).items()
        if published.get((name, version), digest) != digest
    ]
