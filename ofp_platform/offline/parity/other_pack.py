"""Another pack in place of the one that a decision was served under: which of its groups stand for those that were asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ofp_platform.offline.parity.forensic_rebuild import ANYTHING
from ofp_platform.offline.parity.parity_anchor import NotComparable, ServedSnapshot
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.layout import CompiledGroup
from ofp_platform.registry.question import Question, check_request
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.parity_record import UncheckableReason
from ofp_platform.vocabulary.serving import FeatureGroupRef, GetFeaturesRequest


@dataclass(frozen=True)
class OtherPack:
    """Groups of another pack by those of a question."""

    registry: CompiledRegistry

    def counterpart(self, name: str, version: str) -> CompiledGroup | None:
        """The group of that name and version, or else the only one of that name; None: there is none, or there are several."""
        same_group = self.registry.groups.get((name, version))
        if same_group is not None:
            return same_group
        namesakes = [group for group in self.registry.groups.values() if group.name == name]
        return namesakes[0] if len(namesakes) == 1 else None

    def faults(self, reads: Iterable[tuple[str, str, str]]) -> list[str]:
        """Everything that this pack lacks of the features (group, version, name) that a bundle reads, in words."""
        faults = []
        for name, version, feature in sorted(reads):
            group = self.counterpart(name, version)
            if group is None:
                faults.append(self._words(name, version))
            elif feature not in {plan.name for plan in group.features} | {plan.name for plan in group.on_demand}:
                faults.append(f"its group {group.name} {group.version} has no feature {feature}")
        return list(dict.fromkeys(faults))

    def question(self, served_snapshot: ServedSnapshot, pins: ContextPins) -> Question:
        """The question that was answered, of the groups of this pack.

        Raises:
            NotComparable: GROUP_VERSION_MISSING: it has none for one of them, or of another key type; PROVENANCE_INCOMPLETE: one
                needs what the request did not have.
        """
        groups: dict[tuple[str, str], FeatureGroupRef] = {}
        for name, version in served_snapshot.group_names:
            group = self.counterpart(name, version)
            if group is None:
                raise NotComparable(UncheckableReason.GROUP_VERSION_MISSING, self._words(name, version))
            groups[group.name, group.version] = FeatureGroupRef(group_name=group.name, group_version=group.version)
        request = served_snapshot.request.model_copy(update={"feature_groups": tuple(groups.values())})
        try:
            return check_request(GetFeaturesRequest.model_validate(request), self.registry, pins, ANYTHING)
        except ContractError as error:
            is_context = error.reason in (Reason.REQUEST_CONTEXT_MISSING, Reason.REQUEST_CONTEXT_INVALID)
            reason = UncheckableReason.PROVENANCE_INCOMPLETE if is_context else UncheckableReason.GROUP_VERSION_MISSING
            raise NotComparable(reason, f"the other pack: {error.message}") from None

    def _words(self, name: str, version: str) -> str:
        pack = self.registry.pack
        versions = sorted(group_version for group, group_version in self.registry.groups if group == name)
        has = f"it has {name} {', '.join(versions)}: which one is meant?" if versions else f"it has no group {name}"
        return f"pack {pack.pack_id} revision {pack.revision} has nothing for {name} {version}: {has}"
