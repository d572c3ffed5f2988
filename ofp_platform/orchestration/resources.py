"""Resources: the plane, the object store and the reader of the live projection, each a thin door to a plain class."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import dagster as dg

from ofp_platform.cli.environment import Environment
from ofp_platform.online.plane import Plane
from ofp_platform.online.profile import Profile
from ofp_platform.online.serving import Reader
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import migrate

CONNECTIONS = 4


@cache
def _migrated(dsn: str) -> str:
    """Once a process: whoever comes first to a new database makes its schema."""
    migrate(dsn)
    return dsn


class PlaneResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The online plane. Empty settings mean the environment: OFP_PROFILE, OFP_DATABASE_URL, OFP_HOME."""

    profile_source: str = ""
    database_url: str = ""

    def _environment(self) -> Environment:
        given = {"profile": self.profile_source, "database_url": self.database_url}
        return Environment().model_copy(update={name: value for name, value in given.items() if value})

    def load_profile(self) -> Profile:
        """The profile in use.

        Raises:
            ProfileError: it cannot be used; the text names file and field.
        """
        return self._environment().load_profile()

    @contextmanager
    def open(self) -> Iterator[Plane]:
        """The plane, for the time of a step or a tick.

        Raises:
            EmbeddedPostgresError | DatabaseUnavailable | LogUnavailable: what does not answer.
        """
        environment = self._environment()
        with Plane.open(environment.load_profile(), _migrated(environment.dsn()), max_connections=CONNECTIONS) as plane:
            yield plane


class ObjectStoreResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The object store of the plane's profile."""

    plane: dg.ResourceDependency[PlaneResource]

    def open(self) -> ObjectStore:
        """The store."""
        profile = self.plane.load_profile()
        return ObjectStore(profile.object_store_url, endpoint=profile.object_store_endpoint_url)


class FeatureReaderResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """`get_features` on the live projection, for assets and notebooks."""

    plane: dg.ResourceDependency[PlaneResource]

    @contextmanager
    def open(self) -> Iterator[Reader]:
        """A reader of the projection that is live now."""
        with self.plane.open() as plane:
            yield plane.reader(plane.ensure_live())
