"""Where a command works: home folder, database, profile. From options, else the environment, else what is there."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from ofp_platform.cli.terminal.refusals import CommandRefused

if TYPE_CHECKING:
    from ofp_platform.online.plane import Plane
    from ofp_platform.storage.objects import ObjectStore
    from ofp_platform.vocabulary.profile import Profile, Tier

ConnectsAs = Literal["owner", "ingress", "projector", "serving", "offline", "decider", "executor", "auditor"]
"""Who a command connects as: the role of a job of `storage.roles`, or the owner of the schema, who migrates and repairs."""

SHIPPED_PROFILES = ("demo", "handbook", "rings")


class Environment(BaseSettings):
    """Settings by OFP_HOME, OFP_DATABASE_URL, OFP_PROFILE and OFP_PRINCIPALS; an empty variable counts as not set.

    home: the folder of everything local (embedded PostgreSQL, objects, Dagster, logs). database_url: a PostgreSQL other
    than the embedded one. read_database_url: a replica of it that the service reads state from. audit_database_url: the same
    with a role that may read the log, for what the console shows. decider_database_url: the same with a role that may change
    the posture. executor_database_url: the same with a role that may execute actions. role_per_job: whether processes
    that are started together take the role of their job there (passwords: `passfile` in the DSN). profile: the name of a
    shipped profile or the path of a file, with `@` and a tier behind it (`infra/profile.yaml@production`). principals: the
    file of those who may ask the HTTP service; else it is in the home folder. log_form: how long-running commands write
    their log. The rest is wiring: where log and objects are.
    """

    model_config = SettingsConfigDict(env_prefix="OFP_", env_ignore_empty=True, extra="ignore", frozen=True)

    home: Path = Field(
        default=Path(".ofp"), description="folder of all that is local: embedded PostgreSQL, objects, Dagster, logs"
    )
    database_url: str | None = Field(default=None, description="a PostgreSQL other than the embedded one")
    read_database_url: str | None = Field(default=None, description="a replica of it, from which the service reads state")
    audit_database_url: str | None = Field(
        default=None, description="the same with a role that may read the log, for the console"
    )
    decider_database_url: str | None = Field(
        default=None, description="the same with a role that may change the posture, for the kill switch over HTTP"
    )
    executor_database_url: str | None = Field(
        default=None, description="the same with a role that may execute actions, for settling one over HTTP"
    )
    role_per_job: bool = Field(default=False, description="processes that are started together take the role of their job")
    profile: str | None = Field(default=None, description="a shipped profile or a file, with `@` and a tier behind it")
    principals: Path | None = Field(default=None, description="file of those who may ask the HTTP service; else in the home")
    log_form: Literal["json", "text"] | None = Field(
        default=None, description="log of long-running commands: `json` or `text`; else text on a terminal, JSON everywhere else"
    )
    object_store_url: str | None = Field(default=None, description="wiring: the object store")
    object_store_endpoint_url: str | None = Field(default=None, description="wiring: an S3 that is not Amazon's")
    kinesis_endpoint_url: str | None = Field(default=None, description="wiring: a Kinesis that is not Amazon's")

    @property
    def folder(self) -> Path:
        """The home folder, absolute."""
        return self.home.expanduser().resolve()

    @property
    def postgres_folder(self) -> Path:
        """The data folder of the embedded PostgreSQL."""
        return self.folder / "postgres"

    @property
    def dagster_folder(self) -> Path:
        """DAGSTER_HOME of the processes started here."""
        return self.folder / "dagster"

    @property
    def own_profile(self) -> Path:
        """Where `ofp init` writes a profile, and where it is looked for when none is named."""
        return self.folder / "profile.yaml"

    @property
    def principals_file(self) -> Path:
        """The file of those who may ask the HTTP service."""
        return self.folder / "principals.json" if self.principals is None else self.principals.expanduser().resolve()

    @property
    def keys_folder(self) -> Path:
        """The folder of the keys of principals that commands made for themselves."""
        return self.folder / "keys"

    @property
    def profile_source(self) -> str:
        """The profile in use: a shipped name, or a path."""
        if self.profile is not None:
            return self.profile
        return str(self.own_profile) if self.own_profile.exists() else "demo"

    @property
    def tier(self) -> Tier:
        """The tier that the profile is used in.

        Raises:
            ProfileError: there is none of that name.
        """
        return split_source(self.profile_source)[1]

    @property
    def lasting_profile_source(self) -> str:
        """The profile in use, as a process that works in another folder can name it."""
        source, tier = split_source(self.profile_source)
        source = source if source in SHIPPED_PROFILES else str(Path(source).expanduser().resolve())
        return with_tier(source, tier)

    def load_profile(self) -> Profile:
        """The profile in use, with the wiring of this environment; objects are in the home folder where none says otherwise.

        Raises:
            ProfileError: it cannot be used; the text names file and field. In production, also what of the wiring is unsafe.
        """
        profile = self.read_profile(self.profile_source)
        if self.tier.value == "production" and (faults := unsafe_wiring(self, profile)):
            from ofp_platform.vocabulary.profile import ProfileError

            raise ProfileError(f"{self.profile_source}: not with this wiring:\n" + "\n".join(f"  {fault}" for fault in faults))
        return profile

    def read_profile(self, source: str) -> Profile:
        """As `load_profile`, of a shipped name or a path, with `@` and a tier behind it or without."""
        from ofp_platform.vocabulary.profile import WIRING, ProfileError, load_profile

        source, tier = split_source(source)
        if source in SHIPPED_PROFILES:
            with resources.as_file(resources.files("ofp_platform.cli").joinpath("profiles", f"{source}.yaml")) as path:
                profile = load_profile(path, tier)
        else:
            profile = load_profile(Path(source).expanduser(), tier)
        wiring = {name: value for name in WIRING if (value := getattr(self, name)) is not None}
        if "object_store_url" not in profile.model_fields_set | wiring.keys():
            wiring["object_store_url"] = f"file://{quote(str(self.folder / 'objects'))}"
        try:
            return type(profile).model_validate(profile.model_dump(exclude_unset=True) | wiring)
        except ValidationError as error:
            names = ", ".join(f"OFP_{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in error.errors() if fault["loc"])
            raise ProfileError(f"the wiring cannot be used: {names}") from None

    def dsn(self, role: ConnectsAs) -> str:
        """The DSN of the database; starts the embedded one where none is named. It stops when its last user exits.

        `role`: of that job on the embedded server, and where `role_per_job` says so. Any other DSN that is named has a role of
        its own.

        Raises:
            CommandRefused: OFP_DATABASE_URL is not a DSN; or it is not set, and the home folder does not exist.
            EmbeddedPostgresError: it does not start; the text says what to do.
        """
        if self.database_url is not None:
            return self.dsn_of_role(_checked(self.database_url), role)
        if not self.folder.is_dir():
            raise CommandRefused(no_home(self.folder))
        from ofp_platform.storage.embedded import start_embedded

        return self.dsn_of_role(start_embedded(self.postgres_folder), role)

    def dsn_of_role(self, dsn: str, role: ConnectsAs) -> str:
        """The DSN that `dsn("owner")` gave, for the role of a job where the server has one."""
        if role == "owner" or (self.database_url is not None and not self.role_per_job):
            return dsn
        from ofp_platform.storage.roles import Job, default_role

        if self.database_url is not None:
            import psycopg

            return psycopg.conninfo.make_conninfo(dsn, user=default_role(Job(role)))
        from ofp_platform.storage.embedded import as_role

        return as_role(dsn, default_role(Job(role)))

    def read_dsn(self) -> str | None:
        """The DSN of a replica that the service reads state from; None: none is named.

        Raises:
            CommandRefused: OFP_READ_DATABASE_URL is not a DSN.
        """
        return None if self.read_database_url is None else _checked(self.read_database_url, "OFP_READ_DATABASE_URL")

    def audit_dsn(self, dsn: str) -> str:
        """The DSN for what operators look at: that of the auditor on the embedded server, or the one that is named, or `dsn`.

        Raises:
            CommandRefused: OFP_AUDIT_DATABASE_URL is not a DSN.
        """
        if self.audit_database_url is not None:
            return _checked(self.audit_database_url, "OFP_AUDIT_DATABASE_URL")
        return self.dsn_of_role(dsn, "auditor")

    def decider_dsn(self, dsn: str) -> str:
        """The DSN for the kill switch over HTTP: that of a decider on the embedded server, or the one that is named, or `dsn`.

        Raises:
            CommandRefused: OFP_DECIDER_DATABASE_URL is not a DSN.
        """
        if self.decider_database_url is not None:
            return _checked(self.decider_database_url, "OFP_DECIDER_DATABASE_URL")
        return self.dsn_of_role(dsn, "decider")

    def executor_dsn(self, dsn: str) -> str:
        """The DSN for settling actions over HTTP: that of an executor on the embedded server, or the one that is named, or `dsn`.

        Raises:
            CommandRefused: OFP_EXECUTOR_DATABASE_URL is not a DSN.
        """
        if self.executor_database_url is not None:
            return _checked(self.executor_database_url, "OFP_EXECUTOR_DATABASE_URL")
        return self.dsn_of_role(dsn, "executor")

    def open_plane(self, role: ConnectsAs, *, create_stream: bool = False) -> Plane:
        """The plane of the profile on the database. The caller closes it. Only who appends or projects creates the stream.

        Raises:
            ProfileError | EmbeddedPostgresError | DatabaseUnavailable | LogError: what is wrong, in words.
        """
        from ofp_platform.online.plane import Plane

        return Plane.open(self.load_profile(), self.dsn(role), create_stream=create_stream)

    def open_plane_without_log(self, role: ConnectsAs) -> Plane:
        """As `open_plane`, for what is answered by the database: whether or not there is a stream, or it answers.

        Raises:
            ProfileError | EmbeddedPostgresError | DatabaseUnavailable: what is wrong, in words.
        """
        from ofp_platform.online.plane import Plane

        return Plane.open_without_log(self.load_profile(), self.dsn(role))

    def open_objects(self) -> ObjectStore:
        """The object store of the profile, for what neither a database nor a log answers.

        Raises:
            ProfileError | ObjectStoreUnavailable: what is wrong, in words.
        """
        from ofp_platform.storage.objects import open_objects

        return open_objects(self.load_profile())


def split_source(source: str) -> tuple[str, Tier]:
    """The name or path of a profile, and its tier: `local` where none is named behind an `@`.

    Raises:
        ProfileError: no tier has that name.
    """
    from ofp_platform.vocabulary.profile import ProfileError, Tier

    name, mark, tier = source.rpartition("@")
    if not mark or "/" in tier or "." in tier:  # an @ inside a path
        return source, Tier.LOCAL
    if tier not in list(Tier):
        raise ProfileError(f"{source}: there is no tier {tier!r}; there are {', '.join(Tier)}")
    return name, Tier(tier)


def with_tier(source: str, tier: Tier) -> str:
    """The name of a profile in a tier, as `split_source` takes it."""
    return source if tier.value == "local" else f"{source}@{tier}"


_PROVEN_TLS = ("verify-ca", "verify-full")


def unsafe_wiring(environment: Environment, profile: Profile) -> list[str]:
    """Why production may not run like this, in words with the variable to change; empty where it may."""
    faults = []
    if environment.database_url is None:
        faults.append("the embedded PostgreSQL is for one machine: name a server with OFP_DATABASE_URL")
    for variable, dsn in (
        ("OFP_DATABASE_URL", environment.database_url),
        ("OFP_READ_DATABASE_URL", environment.read_database_url),
        ("OFP_DAGSTER_POSTGRES_URL", os.environ.get("OFP_DAGSTER_POSTGRES_URL")),
    ):
        if dsn and not _proves_its_server(_checked(dsn, variable)):
            faults.append(f"{variable}: nobody proves who answers; say sslmode=verify-full and sslrootcert in it")
    if profile.object_store_url.startswith("file://"):
        faults.append(f"{profile.object_store_url}: a folder is of one machine; name a bucket with OFP_OBJECT_STORE_URL")
    for name in ("object_store_endpoint_url", "kinesis_endpoint_url"):
        if (getattr(profile, name) or "").startswith("http://"):
            faults.append(f"OFP_{name.upper()}: without TLS; name an address with https://")
    if profile.log_kind == "kafka":
        from ofp_platform.log.kafka_settings import DEVELOPMENT, PROTOCOL

        if os.environ.get(PROTOCOL, "PLAINTEXT") == "PLAINTEXT":
            faults.append(f"{PROTOCOL}: records would cross the network in plain text; set SSL or SASL_SSL")
        if os.environ.get(DEVELOPMENT):
            faults.append(f"{DEVELOPMENT}: is for a broker to develop on, which may lose records; unset it")
    return faults


def _proves_its_server(dsn: str) -> bool:
    """Whether a DSN demands a certificate that an authority signed, or goes to sockets of this machine alone."""
    import psycopg

    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    hosts = str(parts.get("host") or "").split(",")
    is_local = "hostaddr" not in parts and "service" not in parts and all(host.startswith(("/", "@")) for host in hosts)
    return is_local or parts.get("sslmode") in _PROVEN_TLS or parts.get("sslrootcert") == "system"


def no_home(folder: Path) -> str:
    """Why a command that makes no home folder does nothing in one that is not there, and who makes one."""
    return (
        f"there is no folder {folder}: name the home folder with --home or OFP_HOME, make one with `ofp init` (`ofp demo` and"
        " `ofp up` make one too), or name a PostgreSQL with OFP_DATABASE_URL"
    )


def _checked(dsn: str, variable: str = "OFP_DATABASE_URL") -> str:
    import psycopg

    try:
        psycopg.conninfo.conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        # without the text itself: a DSN may hold a password
        raise CommandRefused(f"{variable} is not a PostgreSQL DSN, as in postgresql://user@host/database") from None
    return dsn


def resolve(
    home: Path | None = None, profile: str | None = None, *, makes_home: bool = False, needs_home: bool = False
) -> Environment:
    """The environment with the options that were given on top of it. `needs_home`: the command reads files of the home folder,
    not a server that the environment may name.

    Raises:
        CommandRefused: the home folder that was named, or is needed, is not there, and this command makes none.
    """
    if home is not None and not makes_home and not home.expanduser().is_dir():
        raise CommandRefused(no_home(home.expanduser().resolve()))
    settings: dict[str, Any] = {"home": home, "profile": profile}
    environment = Environment(**{name: value for name, value in settings.items() if value is not None})
    if needs_home and not environment.folder.is_dir():
        raise CommandRefused(no_home(environment.folder))
    return environment
