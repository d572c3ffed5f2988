"""The working set of the offline commands: the plane of a profile, its object store, and the context of its builds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ofp_platform.cli.environment import ConnectsAs, Environment
from ofp_platform.vocabulary.offline.feature_engine import FeatureEngine

if TYPE_CHECKING:
    from ofp_platform.offline.runs.build_context import BuildContext
    from ofp_platform.online.plane import Plane


def build_context_on(
    plane: Plane,
    environment: Environment,
    workers: int = 2,
    engine: FeatureEngine = FeatureEngine.PROCESSES,
    memory: int | None = None,
) -> BuildContext:
    """The build context of a plane; files under way lie in the folder `builds` of the home folder."""
    from ofp_platform.offline.requests.policies import policies_of
    from ofp_platform.offline.runs.build_context import BuildContext

    objects, scratch = plane.objects, environment.folder / "builds"
    return BuildContext(
        plane.pool,
        plane.log,
        objects,
        scratch,
        workers,
        engine=engine,
        memory=memory,
        limits=plane.profile.builds,
        policy_rev=plane.profile.policy_rev,
        policies=policies_of(plane.profile),
        context_log=plane.known_context_log(),
    )


@contextmanager
def open_build_context(
    environment: Environment,
    workers: int = 2,
    engine: FeatureEngine = FeatureEngine.PROCESSES,
    memory: int | None = None,
    *,
    role: ConnectsAs = "offline",
) -> Iterator[tuple[Plane, BuildContext]]:
    """The plane of the profile and its build context; closed with the context.

    Raises:
        ProfileError | EmbeddedPostgresError | DatabaseUnavailable | LogError | ObjectStoreUnavailable: what is wrong.
        SparkUnavailable: the engine is Spark, and it is not installed here. MemoryTooSmall: so many workers need more.
    """
    with environment.open_plane(role) as plane:
        yield plane, build_context_on(plane, environment, workers, engine, memory)
