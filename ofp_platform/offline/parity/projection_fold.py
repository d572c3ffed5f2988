"""The records folded for one comparison: what a new feature group of a projection should serve.

Nothing that a projection stored is used; see `forensic_rebuild`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ofp_platform.log.archive_store import Archive
from ofp_platform.log.port import EventLog
from ofp_platform.offline.parity.forensic_rebuild import ANYTHING, NotRebuildable, RunPolicies, replay_run
from ofp_platform.offline.parity.rebuilding import QuestionAt, Rebuilder
from ofp_platform.offline.sources.stream_records import StreamRecords
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.question import check_request
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.serving import GetFeaturesRequest


@dataclass(frozen=True)
class ProjectionFold:
    """A fold of archive and log that shares no state with any projection; files under way are temporary."""

    log: EventLog
    archive: Archive
    profile: Profile

    def __call__(
        self, registry: CompiledRegistry, pins: ContextPins, basis: Basis, requests: Sequence[GetFeaturesRequest]
    ) -> list[str]:
        """The snapshot hash of each request's answer at the basis; empty where a value cannot be served.

        Raises:
            NotRebuildable: archive and log do not hold everything that the basis knows.
            as `replay_run`.
        """
        with tempfile.TemporaryDirectory() as folder:
            run = replay_run(
                StreamRecords(self.log, self.archive),
                ReplayBasis.up_to(basis),
                registry,
                pins,
                RunPolicies.of(self.profile),
                Path(folder) / "replay",
            )
            missing_part = run.knowledge.lacks(basis)
            if missing_part is not None:
                raise NotRebuildable(missing_part)
            rebuilder = Rebuilder(run)  # as sent: what a group should serve of each key, whatever joins these
            questions = [QuestionAt.of(check_request(request, registry, pins, ANYTHING), basis) for request in requests]
            answers = rebuilder.hashed_bytes(questions)
        return ["" if isinstance(answer, ContractError) else sha256_hex(answer) for answer in answers]
