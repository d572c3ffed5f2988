"""The world of the kill loop: simulated payments with copies and disorder, in a log of a database of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psycopg
from psycopg import sql

from ofp_platform.online.plane import Plane
from ofp_platform.online.projecting.projector import Projector
from ofp_platform.online.projecting.projector_settings import ProjectorSettings
from ofp_platform.online.state.known_identities import IdentityPolicy
from ofp_platform.online.state.projection import ProjectionRow, open_projection
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.simulation.delays import DelayModel
from ofp_platform.simulation.disturbances import Disturbances
from ofp_platform.simulation.payments import PaymentSimulation, SimulationSummary, simulate_payments
from ofp_platform.simulation.population import PopulationSize
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.profile import Profile, load_profile
from ofp_platform_tests.oracle.simulated_log import PINS, write_profile

DAY = 86_400_000_000
DAYS = 310
"""Ten times what a projection keeps, so that pruning is part of what is interrupted."""
SLOW = DelayModel(median_seconds=60, sigma=1.5, maximum_seconds=1_800, late_share=0.01, late_minimum_seconds=1_800)
PAGE = 50_000
_KNOWN_EVENTS = 5_000
"""In memory, of some hundred thousand: nearly all are in segments, on several levels."""


@cache
def registry() -> CompiledRegistry:
    """The shipped pack, compiled once in the process that children are forked from."""
    return compile_pack(shipped_pack("card_payments"))


@dataclass(frozen=True)
class World:
    """A filled log. `summary`: what the simulation says is in it; its event times begin at `start`, microseconds."""

    profile: Profile
    profile_path: Path
    dsn: str
    summary: SimulationSummary
    records: int
    start: int

    def open(self, *, connections: int = 4) -> Plane:
        """The plane; the caller closes it."""
        return Plane.open(self.profile, self.dsn, max_connections=connections)


def drop_database(server: str, name: str) -> None:
    """Remove it, whoever is still connected."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def make_world(dsn: str, folder: Path, payments: int, seed: int, *, range_size: int) -> World:
    """Simulate and append. One payment in 25 comes twice, most come out of order, some must not be applied."""
    folder.mkdir(parents=True)
    some = max(payments // 2_000, 1)
    disturbances = Disturbances(
        duplicates=payments // 50, retries=payments // 50, future=some, wrong_type=some, missing_field=some,
        foreign_pins=some, conflicts=some,
    )  # fmt: skip
    wanted = PaymentSimulation(
        pins=ContextPins.model_validate(PINS),
        seed=seed,
        payments=payments,
        days=DAYS,
        size=PopulationSize(customers=1_400, accounts=1_600, merchants=600),
        delays=SLOW,
        disturbances=disturbances,
    )
    stream = simulate_payments(wanted)
    path = write_profile(folder, partitions=4, range_size=range_size, batch_records=range_size, known_events_recent=_KNOWN_EVENTS)
    declared = load_profile(path)
    with Plane.open(declared, dsn) as plane:
        for part in stream.batches(PAGE):
            receipt = plane.log.append_columns(part.columns(), part.admitted_at)
            assert not receipt.refusals
    return World(declared, path, dsn, stream.summary, stream.summary.records, wanted.start)


def opened_projection(plane: Plane, run_config_digest: str, status: str = "building") -> ProjectionRow:
    """A projection of the same records under the same policy; the digest only tells it from others in the store."""
    with plane.pool.connection() as connection:
        return open_projection(
            connection, plane.log.stream_name, plane.profile.context_pins, registry(), run_config_digest, status=status
        )


def projector_of(plane: Plane, projection_id: int, kind: type[Projector] = Projector) -> Projector:
    """A projector of one of them; it reads ahead however small its commits are."""
    return kind(plane.pool, plane.log, registry(), projection_id, settings_of(plane.profile))


def settings_of(declared: Profile) -> ProjectorSettings:
    """The settings of a projector that reads ahead however small its commits are, and merges its known events early."""
    return ProjectorSettings(
        declared.clock_skew_us,
        declared.allowed_lateness_us,
        least_ahead=1,
        identities=IdentityPolicy(declared.known_events_recent, fan_in=4),
    )
