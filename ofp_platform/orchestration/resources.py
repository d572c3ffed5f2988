"""Resources: the plane, the object store and the reader of the live projection, each a thin door to a plain class."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from ofp_platform.cli.environment import ConnectsAs, Environment
from ofp_platform.cli.offline.build_context import build_context_on
from ofp_platform.log.port import StreamNotFound
from ofp_platform.offline.runs.build_context import BuildContext
from ofp_platform.online.plane import Plane
from ofp_platform.online.serving.reader import Reader
from ofp_platform.storage.objects import ObjectStore, open_objects
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.storage.schema import migrate, schema_is_current
from ofp_platform.vocabulary.offline.feature_engine import FeatureEngine
from ofp_platform.vocabulary.profile import Profile

CONNECTIONS = 4
_MAKING_STREAMS: frozenset[ConnectsAs] = frozenset({"owner", "ingress", "projector"})


@cache
def _migrate_once(dsn: str) -> None:
    """Once a process: whoever comes first to a new database makes its schema. A role that may not finds it made."""
    if not schema_is_current(dsn):
        migrate(dsn)


def _prepared(environment: Environment, role: ConnectsAs) -> str:
    dsn = environment.dsn("owner")
    _migrate_once(dsn)
    return environment.dsn_of_role(dsn, role)


@dataclass(frozen=True)
class _Settings:
    """Which deployment. Empty settings mean the environment: OFP_PROFILE, OFP_DATABASE_URL, OFP_HOME.

    No ConfigurableResource: whoever launches a run must not choose which file is read and which database is connected to.
    """

    profile_source: str = ""
    database_url: str = ""

    def _environment(self) -> Environment:
        settings = {"profile": self.profile_source, "database_url": self.database_url}
        return Environment().model_copy(update={name: value for name, value in settings.items() if value})

    def load_profile(self) -> Profile:
        """The profile in use.

        Raises:
            ProfileError: it cannot be used; the text names file and field.
        """
        return self._environment().load_profile()

    def named_dsn(self) -> str | None:
        """The DSN of the database that settings or environment name; None: the embedded one, which this does not start."""
        environment = self._environment()
        return None if environment.database_url is None else environment.dsn("auditor")

    @contextmanager
    def _open_plane(self, role: ConnectsAs) -> Iterator[Plane]:
        """Whoever comes first makes the stream, in a role that may."""
        environment = self._environment()
        profile, dsn = environment.load_profile(), _prepared(environment, role)
        try:
            plane = Plane.open(profile, dsn, max_connections=CONNECTIONS, create_stream=role in _MAKING_STREAMS)
        except StreamNotFound:
            Plane.open(profile, environment.dsn_of_role(environment.dsn("owner"), "projector"), max_connections=1).close()
            plane = Plane.open(profile, dsn, max_connections=CONNECTIONS, create_stream=False)
        with plane:
            yield plane


@dataclass(frozen=True)
class PlaneResource(_Settings):
    """The online plane."""

    def environment(self) -> Environment:
        """Home folder, database and profile."""
        return self._environment()

    @contextmanager
    def open(self, role: ConnectsAs = "projector") -> Iterator[Plane]:
        """The plane, for the time of a step or a tick, in the role of a job: where the server has them.

        Raises:
            EmbeddedPostgresError | DatabaseUnavailable | LogUnavailable: what does not answer.
        """
        with self._open_plane(role) as plane:
            yield plane

    @contextmanager
    def open_without_log(self, role: ConnectsAs) -> Iterator[Plane]:
        """As `open`, for what the database alone answers: whether or not there is a stream, or it answers.

        Raises:
            EmbeddedPostgresError | DatabaseUnavailable: it does not answer.
        """
        environment = self._environment()
        profile, dsn = environment.load_profile(), _prepared(environment, role)
        with Plane.open_without_log(profile, dsn, max_connections=CONNECTIONS) as plane:
            yield plane

    @contextmanager
    def open_pool(self) -> Iterator[Pool]:
        """The database alone, for what has to be written whether or not the log answers.

        Raises:
            EmbeddedPostgresError | DatabaseUnavailable: it does not answer.
        """
        with open_pool(_prepared(self._environment(), "offline")) as pool:
            yield pool


@dataclass(frozen=True)
class ObjectStoreResource(_Settings):
    """The object store of the profile."""

    def open(self) -> ObjectStore:
        """The store."""
        return open_objects(self.load_profile())


@dataclass(frozen=True)
class FeatureReaderResource(_Settings):
    """`get_features` on the live projection, for assets and notebooks."""

    @contextmanager
    def open(self) -> Iterator[Reader]:
        """A reader of the projection that is live now."""
        with self._open_plane("serving") as plane:
            yield plane.reader(plane.known_live())


@dataclass(frozen=True)
class BuildContextResource(_Settings):
    """The working set of builds and the archive: database, log, object store, and the folder `builds` for files under way."""

    workers: int = 2

    @contextmanager
    def open(self, engine: FeatureEngine = FeatureEngine.PROCESSES, memory: int | None = None) -> Iterator[BuildContext]:
        """The build context of the profile's stream, for the time of a step or a tick.

        Raises:
            SparkUnavailable: the engine is Spark, and it is not installed here. MemoryTooSmall: so many workers need more.
        """
        with self._open_plane("offline") as plane:
            yield build_context_on(plane, self._environment(), self.workers, engine, memory)
