"""The demo's ring of accounts: ordinary one by one, seen as an entity once their links are known, and rebuilt from both logs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
from rich.console import Console

from ofp_platform.cli.demo.demo_events import run_of
from ofp_platform.cli.demo.replay import project_available
from ofp_platform.cli.demo.summary import facts, heading
from ofp_platform.cli.demo.through_door import stream_world
from ofp_platform.cli.environment import Environment
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.identity.context_replay import ContextReplay
from ofp_platform.offline.parity.forensic_rebuild import RunPolicies, rebuild_recorded
from ofp_platform.offline.sources.stream_records import StreamRecords
from ofp_platform.online.plane import Plane
from ofp_platform.online.state.projection import ProjectionRow
from ofp_platform.simulation.rings import RingSimulation, RingStream, simulate_ring
from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.identity import FeatureKey, KeyType
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.serving import FeatureGroupRef, GetFeaturesRequest
from ofp_platform.vocabulary.times import format_time
from ofp_platform.world.makers import rings_world

ALONE, ENTITY = ("account_alone", "v1"), ("account_entity", "v1")


@dataclass(frozen=True)
class AccountRead:
    """Transfers of a day before the as-of: of an account alone, and of the entity that it belongs to; amounts in minor units."""

    account: str
    alone: dict[str, int]
    entity: dict[str, int]


@dataclass(frozen=True)
class RingSteps:
    """The steps. `profile`: the shipped one of rings, on the log of the demo."""

    environment: Environment
    profile: Profile
    dsn: str
    console: Console

    def run(self) -> list[AccountRead]:
        """All steps, and what was read of each account at the end.

        Raises:
            CommandRefused: the log refused a record, the ring is not seen, or a log gives another answer than was served.
        """
        simulation = RingSimulation(self.profile.context_pins)
        stream = simulate_ring(simulation)
        heading(self.console, "A ring of accounts that only its links show")
        with Plane.open(self.profile, self.dsn) as plane:
            row = self._fill(plane, stream)
            as_of = int(stream.deliveries.ts.max())
            reads = [self._read(plane, row, account, as_of) for account in stream.accounts]
            version = self._rebuilt(plane, row, stream.ring[0], as_of)
        largest_alone = max(reads, key=lambda read: read.alone["transfers_24h"])
        largest_entity = max(reads, key=lambda read: read.entity["transfers_24h"])
        of_ring = [read for read in reads if read.account in stream.ring]
        if largest_entity.account not in stream.ring or largest_alone.account in stream.ring:
            raise CommandRefused("the ring is not what the features of entities show: this is a defect")
        late = f"{len(stream.ring)} of them admitted {simulation.linked_after_days} days late"
        busiest = max(read.alone["transfers_24h"] for read in of_ring)
        total = largest_entity.entity
        facts(
            self.console,
            [
                ("transfers", f"{len(stream.deliveries):,} of {len(reads)} accounts, {len(stream.amendments)} amended later"),
                ("links", f"{len(stream.links)}, {late}"),
                (
                    "one by one",
                    f"the busiest account made {largest_alone.alone['transfers_24h']} in a day, of the ring {busiest}",
                ),
                (
                    "as entities",
                    f"{len(of_ring)} accounts are one entity: {total['transfers_24h']} in a day, {total['sent_24h'] / 100:,.2f}"
                    f" in all, to {total['counterparties_7d']} payees in a week",
                ),
                ("proof", f"graph version {version}: the same hash from both logs, folded again"),
            ],
        )
        return reads

    def _fill(self, plane: Plane, stream: RingStream) -> ProjectionRow:
        """Append and fold both streams, what is not there yet."""
        simulation = RingSimulation(self.profile.context_pins)
        stream_world(self.profile, self.dsn, lambda: rings_world(simulation), self.console)
        graph_projector = plane.graph_projector()
        while graph_projector.apply_available(self.profile.batch_records) is not None:
            pass
        row = plane.ensure_live()
        project_available(plane.projector(row), self.profile.batch_records, lambda records: None)
        return plane.row(row.projection_id)

    def _request(self, account: str, as_of: int) -> GetFeaturesRequest:
        return GetFeaturesRequest(
            context_pins=self.profile.context_pins,
            feature_keys=(FeatureKey(key_type=KeyType.ACCOUNT, key_id=account),),
            feature_groups=tuple(FeatureGroupRef(group_name=name, group_version=version) for name, version in (ALONE, ENTITY)),
            as_of_time_utc=format_time(as_of),
        )

    def _read(self, plane: Plane, row: ProjectionRow, account: str, as_of: int) -> AccountRead:
        body: dict[str, Any] = orjson.loads(plane.reader(row).answer(self._request(account, as_of)).body)
        by_group = {
            (group["group_name"], group["group_version"]): group["features"]
            for group in body["snapshot"]["by_key"][0]["by_group"]
        }
        return AccountRead(account, by_group[ALONE], by_group[ENTITY])

    def _rebuilt(self, plane: Plane, row: ProjectionRow, account: str, as_of: int) -> str:
        """Rebuild an answer from both logs; the name of its graph version."""
        answer = plane.reader(row).answer(self._request(account, as_of))
        hashed_part = orjson.loads(answer.hashed)
        links, profile = plane.context_log(), self.profile
        with TemporaryDirectory() as folder:
            rebuilt = rebuild_recorded(
                StreamRecords(plane.log, plane.archive),
                plane.registry_of(row),
                row.pins,
                RunPolicies.of(profile),
                hashed_part,
                Path(folder) / "replay",
                context=lambda: ContextReplay.read(links, profile.context_pins, profile.clock_skew_us),
            )
        if rebuilt.hash != answer.hash:
            raise CommandRefused(f"snapshot {answer.hash} was served, the logs give {rebuilt.hash}")
        return str(hashed_part["graph_version"]["graph_version"])


def ring_profile(shipped_profile: Profile, log_kind: str) -> Profile:
    """The profile of the run: the shipped one, on a log of that kind."""
    made_of = {name: value for name, value in asdict(RingSimulation(shipped_profile.context_pins)).items() if name != "pins"}
    profile = run_of(shipped_profile, {"parameter_hash": digest_of(made_of)}, log_kind)
    assert profile.context_stream is not None
    suffix = profile.stream_name.removeprefix(shipped_profile.stream_name)
    return profile.model_copy(update={"context_stream": f"{shipped_profile.context_stream}{suffix}"})
