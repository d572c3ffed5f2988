"""The checks of `ofp doctor`, each with its result and, where something is wrong, advice."""

from __future__ import annotations

import enum
import os
import platform
import re
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import assert_never

import boto3
import httpx
import psycopg
from pydantic import ValidationError

from ofp_platform.api.principals import PrincipalsError, read_principals
from ofp_platform.cli.environment import Environment
from ofp_platform.cli.installation.dagster_runs import lost_runs
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.log.archive_store import ReceiptDamaged
from ofp_platform.log.kafka import KafkaLog
from ofp_platform.log.kafka_settings import KafkaSettings
from ofp_platform.log.kinesis import KinesisLog
from ofp_platform.log.port import LogError, StreamNotFound
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.online.plane import Plane, profile_pack
from ofp_platform.online.projecting.continuous import driver_died, holds_projection
from ofp_platform.online.projecting.epoch_barrier import holding_shards
from ofp_platform.online.state.key_shards import shard_words
from ofp_platform.online.state.projection import published_groups
from ofp_platform.registry.history import check
from ofp_platform.registry.models import Pack
from ofp_platform.registry.pack import pack_digest
from ofp_platform.registry.pack_text import PackErrors
from ofp_platform.storage.embedded import EmbeddedPostgresError
from ofp_platform.storage.objects import ObjectStoreUnavailable, open_objects
from ofp_platform.storage.postgres import DatabaseUnavailable, connect, keeps_sessions, open_pool, takes_writes
from ofp_platform.storage.private_files import NotPrivate, require_private_folder, user_name
from ofp_platform.storage.schema import schema_is_current
from ofp_platform.vocabulary.profile import Profile, ProfileError
from ofp_platform.vocabulary.serving import Health, PostureState

PYTHONS = ((3, 11), (3, 14))
_FREE_BYTES = 2_000_000_000
_LOOKED_AT = 10_000
"""Entries of a home folder that are looked at: those of an object store may be very many."""
_PROBE = ("doctor/probe", b"written by ofp doctor\n")
_PORTS = {8000: "HTTP service", 3000: "Dagster's UI"}


class State(enum.Enum):
    """How bad it is. A NOTE is worth knowing and stops nothing."""

    WELL = "well"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    subject: str
    state: State
    result: str
    advice: str = ""


def examine(environment: Environment) -> list[Finding]:
    """All checks, in the order in which a fault of one explains those after it; what cannot be examined is left out."""
    return list(_examine(environment))


def _examine(environment: Environment) -> Iterator[Finding]:
    yield python_version(sys.version_info[:2])
    yield packages(metadata.requires("ofp-platform") or [])
    yield home_folder(environment)
    if environment.folder.is_dir():
        yield home_rights(environment)
    profile, finding = _profile(environment)
    yield finding
    pack = None
    if profile is not None:
        pack, finding = _pack(profile)
        yield finding
        yield object_store(profile)
    dsn, finding = _database(environment)
    yield finding
    if dsn is not None:
        yield _guarded("sessions", lambda: sessions(dsn))
        current, finding = _schema(dsn)
        yield finding
        if current and profile is not None and pack is not None:
            yield published(dsn, pack)
            yield from _running(profile, dsn)
        owner = environment.dsn("owner")  # whose Dagster's tables are, where no other address is named
        yield _guarded("Dagster runs", lambda: dagster_runs(owner))
    yield dagster_home(environment)
    yield principals(environment)
    for port, user in _PORTS.items():
        yield free_port(port, user)


def python_version(version: tuple[int, ...]) -> Finding:
    """Whether the interpreter is one that the locks are made for."""
    version_text = ".".join(map(str, version))
    if PYTHONS[0] <= version < PYTHONS[1]:
        return Finding("Python", State.WELL, f"{version_text} ({platform.python_implementation()})")
    return Finding("Python", State.WRONG, version_text, "use Python 3.11 to 3.13: make setup PYTHON=python3.12")


def packages(requirements: list[str]) -> Finding:
    """Whether everything that runs the plane is installed."""
    needed_packages = [re.split(r"[<>=!~;\[ ]", text, maxsplit=1)[0] for text in requirements if "extra ==" not in text]
    missing = sorted(name for name in needed_packages if not _installed(name))
    if not needed_packages:
        return Finding("packages", State.WRONG, "ofp-platform is not installed here", "make setup")
    if missing:
        return Finding("packages", State.WRONG, f"not installed: {', '.join(missing)}", "make setup")
    return Finding("packages", State.WELL, f"all {len(needed_packages)} are installed")


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def home_folder(environment: Environment) -> Finding:
    """Whether the home folder can be written to, and has room."""
    folder = environment.folder
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        return Finding("home", State.WRONG, f"{folder} cannot be written to", "choose another with --home or OFP_HOME")
    free = shutil.disk_usage(existing).free
    description = f"{folder}, {free / 1e9:.1f} GB free"
    if free < _FREE_BYTES:
        return Finding("home", State.NOTE, description, "a log and its state may need more; choose another disk with OFP_HOME")
    return Finding("home", State.WELL, description)


def home_rights(environment: Environment) -> Finding:
    """Whether the home folder, what lies in it and the link to the embedded server's socket are this user's alone.

    Homes of releases before 53 have files that others may read. The server's own folder is looked at when the server starts.
    """
    folder, own = environment.folder, os.geteuid()
    memory = environment.postgres_folder.with_name(f"{environment.postgres_folder.name}.socket")
    socket_folder = Path(memory.read_text(encoding="utf-8").strip()) if memory.is_file() else None
    for private in [folder] if socket_folder is None else [folder, socket_folder]:
        try:
            if private.exists():
                require_private_folder(private, own)
        except NotPrivate as error:
            return Finding("rights", State.WRONG, str(error), _mending(private, own))
    foreign, readable = [], []
    for path in islice(_entries(folder, environment.postgres_folder), _LOOKED_AT):
        status = path.lstat()
        if status.st_uid != own:
            foreign.append(path)
        elif not stat.S_ISLNK(status.st_mode) and status.st_mode & 0o077:
            readable.append(path)
    if foreign:
        description = (
            f"{len(foreign)} entries of {folder} belong to another user, {foreign[0]} to {user_name(foreign[0].lstat().st_uid)}"
        )
        return Finding("rights", State.WRONG, description, f"if nothing in them is strange: chown -R {own} {foreign[0]}")
    if readable:
        description = f"{len(readable)} entries of {folder} have rights for others, {readable[0]} among them"
        return Finding("rights", State.NOTE, description, f"chmod -R go= {folder}")
    return Finding("rights", State.WELL, f"{folder} is this user's alone")


def _entries(folder: Path, but: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path == but:
            continue
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _entries(path, but)


def _mending(folder: Path, own: int) -> str:
    is_own = folder.lstat().st_uid == own
    return (
        f"chmod 700 {folder}" if is_own else f"as whoever it belongs to, or root: chown -R {own} {folder} && chmod 700 {folder}"
    )


def _profile(environment: Environment) -> tuple[Profile | None, Finding]:
    try:
        profile = environment.load_profile()
    except ProfileError as error:
        advice = "correct the file, or start from a shipped one: ofp init"
        return None, Finding("profile", State.WRONG, str(error), advice)
    description = f"{profile.profile_name} ({environment.profile_source}), tier {environment.tier}, stream {profile.stream_name},"
    description += f" policy {profile.policy_rev[: profile.policy_rev.index('.') + 13]}"
    return profile, Finding("profile", State.WELL, description)


def _pack(profile: Profile) -> tuple[Pack | None, Finding]:
    try:
        pack = profile_pack(profile)
    except PackErrors as errors:
        return None, Finding("pack", State.WRONG, str(errors), f"correct it, then: ofp registry check {profile.pack}")
    return pack, Finding("pack", State.WELL, f"{pack.pack_id} revision {pack.revision}, digest {pack_digest(pack)[:12]}")


def object_store(profile: Profile) -> Finding:
    """Whether an object can be written, once, and read again."""
    path, content = _PROBE
    try:
        store = open_objects(profile)
        store.put_if_absent(path, content)
        if store.get(path) != content:
            return Finding("object store", State.WRONG, f"{store.url} gives back other bytes than were written", "use another")
    except (ObjectStoreUnavailable, ValueError, OSError) as error:
        advice = (
            "look at OFP_OBJECT_STORE_URL, or object_store_url in the profile; credentials of S3 stand in the usual AWS variables"
        )
        return Finding("object store", State.WRONG, str(error), advice)
    return Finding("object store", State.WELL, f"{profile.object_store_url} takes and gives objects")


def _database(environment: Environment) -> tuple[str | None, Finding]:
    is_named = environment.database_url is not None
    try:
        dsn = environment.dsn("auditor")
        with psycopg.connect(dsn, autocommit=True, connect_timeout=10) as connection:
            version = connection.info.server_version
    except (CommandRefused, EmbeddedPostgresError, psycopg.Error) as error:
        advice = (
            "look at OFP_DATABASE_URL, and whether that server runs"
            if is_named
            else "the embedded server did not start; the message names the cause"
        )
        return None, Finding("database", State.WRONG, str(error).strip(), advice)
    where = "the one of OFP_DATABASE_URL" if is_named else f"embedded, in {environment.postgres_folder}"
    return dsn, Finding("database", State.WELL, f"PostgreSQL {version // 10000}.{version % 10000}, {where}")


def sessions(dsn: str) -> Finding:
    """Whether the database is reached without a pooler that takes sessions away, and whether it takes writes."""
    if not keeps_sessions(dsn):
        return Finding(
            "sessions",
            State.WRONG,
            "a pooler stands before the database and gives each transaction another session (pool_mode transaction or"
            " statement): commits would not be heard of, and locks not held",
            "name PostgreSQL itself in OFP_DATABASE_URL, or a pooler with pool_mode = session",
        )
    with connect(dsn, autocommit=True) as connection:
        if not takes_writes(connection):
            advice = "finish the failover, or see default_transaction_read_only; projector and service go on by themselves"
            return Finding("sessions", State.WRONG, "the database is read-only: nothing can be applied", advice)
    return Finding("sessions", State.WELL, "a connection keeps its session, and may write")


def _schema(dsn: str) -> tuple[bool, Finding]:
    try:
        current = schema_is_current(dsn)
    except DatabaseUnavailable as error:
        return False, Finding("schema", State.WRONG, str(error), "see the database")
    if current:
        return True, Finding("schema", State.WELL, "at the newest revision")
    return False, Finding("schema", State.WRONG, "not at the newest revision", "ofp migrate (ofp demo and ofp up do it, too)")


def published(dsn: str, pack: Pack) -> Finding:
    """Whether the pack may be published beside everything that was."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        known_groups = published_groups(connection)
    if refusals := check(known_groups, pack):
        text = "; ".join(str(refusal) for refusal in refusals)
        return Finding("pack against the store", State.WRONG, text, "give the changed groups new versions")
    return Finding(
        "pack against the store", State.WELL, f"no published group version is redefined ({len(known_groups)} in the store)"
    )


def _running(profile: Profile, dsn: str) -> Iterator[Finding]:
    try:
        if not _stream_exists(profile, dsn):
            yield Finding(
                "log",
                State.NOTE,
                f"no stream {profile.stream_name} yet",
                "ofp log append, ofp projector run, ofp up or ofp demo makes it",
            )
            return
        plane = Plane.open(profile, dsn, max_connections=2, create_stream=False)
    except (LogError, ValueError) as error:
        yield Finding("log", State.WRONG, str(error), "look at log_kind, partitions and endpoint in the profile")
        return
    with plane:
        yield _guarded("log", lambda: _log(plane))
        yield _guarded("projector", lambda: _projector(plane))


def _stream_exists(profile: Profile, dsn: str) -> bool:
    """Looked at apart, because opening a plane makes the stream, and whoever examines must change nothing."""
    try:
        match profile.log_kind:
            case "kinesis":
                with closing(boto3.client("kinesis", endpoint_url=profile.kinesis_endpoint_url)) as client:
                    KinesisLog(client, profile.stream_name, profile.partition_key, attempts=2).partitions()
            case "kafka":
                settings = KafkaSettings.of_environment(os.environ)
                with closing(KafkaLog(settings, profile.stream_name, profile.partitions, profile.partition_key)) as log:
                    log.partitions()
            case "postgres":
                with open_pool(dsn, max_size=1) as pool:
                    PostgresLog.open(pool, profile.stream_name)
            case _:
                assert_never(profile.log_kind)
    except StreamNotFound:
        return False
    return True


def _guarded(subject: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except (LogError, ObjectStoreUnavailable, ReceiptDamaged, psycopg.Error) as error:
        return Finding(subject, State.WRONG, str(error).strip(), "see the log and the database")


def _log(plane: Plane) -> Finding:
    count = len(plane.log.partitions())
    description = f"{plane.profile.log_kind} stream {plane.log.stream_name}, {count} partitions"
    if isinstance(plane.log, KinesisLog):
        description += f", keeps records for {plane.log.retention_hours()} hours"
    elif isinstance(plane.log, KafkaLog):
        hours = plane.log.retention_hours()
        description += ", keeps records for good" if hours is None else f", keeps records for {hours} hours"
        if plane.log.is_for_development:
            description += "; its broker is one to develop on (OFP_KAFKA_DEVELOPMENT_BROKER)"
    elif count != plane.profile.partitions:
        description += f" (the profile's {plane.profile.partitions} would be those of a new one)"
    live = plane.live()
    refusal = plane.tail_refusal() if live is None else plane.reading_refusal(live.basis)
    if refusal is not None:
        return Finding("log", State.WRONG, f"{description}; reading cannot go on: {refusal}", "docs/runbook.md, Posture")
    archive_lag = plane.archived_log.archive_lag()
    if archive_lag is not None and archive_lag >= plane.profile.thresholds.archive_lag_amber:
        description += f"; the oldest record that is not archived has used {archive_lag:.0%} of that"
        return Finding("log", State.WRONG, description, "ofp archive run --to-head, and see that it runs by itself")
    return Finding("log", State.WELL, description)


def _projector(plane: Plane) -> Finding:
    row = plane.live()
    if row is None:
        return Finding(
            "projector", State.NOTE, "no projection of this run yet", "ofp demo, ofp up or ofp projector run makes one"
        )
    lag = sum(plane.log.ordinal_lag(row.basis).values())
    driven = holds_projection(plane.pool, row.projection_id)
    description = f"projection {row.projection_id} is {lag} records behind the log; "
    description += "a continuous driver runs" if driven else "no continuous driver runs"
    with plane.pool.connection() as connection:
        held_by = holding_shards(connection, row)
    if held_by:
        description += f"; the next epoch waits for key {shard_words(held_by)} of {row.shards}"
        return Finding("projector", State.NOTE, description, "see whether each has a process: ofp projector status")
    if driver_died(plane.pool, row.projection_id):
        return Finding("projector", State.WRONG, f"{description}, and the last one was not stopped: it died", "ofp projector run")
    if lag <= plane.profile.thresholds.lag_records_amber:
        return Finding("projector", State.WELL, description)
    if driven:
        return Finding("projector", State.NOTE, description, "watch it fall: ofp projector status")
    return Finding("projector", State.WRONG, description, "start one: ofp projector run, or ofp up")


def dagster_home(environment: Environment) -> Finding:
    """Whether Dagster's folder is as `ofp up` makes it."""
    folder_name = os.environ.get("DAGSTER_HOME")
    folder = environment.dagster_folder
    if folder_name is not None and not (Path(folder_name) / "dagster.yaml").exists():
        description = f"DAGSTER_HOME is {folder_name}, which has no dagster.yaml"
        return Finding("Dagster", State.WRONG, description, "unset it, or copy dagster.yaml there")
    if folder_name is not None:
        return Finding("Dagster", State.WELL, f"DAGSTER_HOME is {folder_name}")
    if (folder / "dagster.yaml").exists():
        return Finding("Dagster", State.WELL, f"home in {folder}")
    return Finding("Dagster", State.NOTE, f"no home in {folder} yet", "ofp up makes it")


def dagster_runs(dsn: str) -> Finding:
    """Whether every run that Dagster takes for started is carried on by somebody."""
    dead_runs = lost_runs(dsn)
    if not dead_runs:
        return Finding("Dagster runs", State.WELL, "each that has started is under way")
    texts = "; ".join(
        f"{run.run_id[:8]} of {run.job_name}{'' if run.partition is None else f' {run.partition[:20]}'} ({run.reason})"
        for run in dead_runs
    )
    return Finding(
        "Dagster runs",
        State.NOTE,
        f"STARTED for ever, since the machine or the process died: {texts}",
        "nothing waits for them, the sensors ask for another run; terminate them in Dagster's UI when you see them",
    )


def principals(environment: Environment) -> Finding:
    """Whether the principals of the HTTP service can be used."""
    path = environment.principals_file
    if not path.exists():
        advice = "ofp up and ofp demo make those of this machine; others: ofp principal add NAME --scope features:read"
        return Finding("principals", State.NOTE, f"no file {path}: nobody may ask the HTTP service", advice)
    try:
        count = len(read_principals(path).principals)
    except PrincipalsError as error:
        return Finding("principals", State.WRONG, str(error), "the service lets nobody in until that is mended")
    return Finding("principals", State.WELL, f"{count} may ask the HTTP service, by {path}")


def _health(port: int) -> Finding | None:
    """The posture of the service that listens there; None where it is none of ours."""
    try:
        health = Health.model_validate_json(httpx.get(f"http://127.0.0.1:{port}/health", timeout=2.0, trust_env=False).content)
    except (httpx.HTTPError, ValidationError):
        return None
    text = f"the HTTP service of the plane is {health.state.value}"
    if health.state is PostureState.GREEN:
        return Finding(f"port {port}", State.WELL, text)
    state = State.WRONG if health.state is PostureState.RED else State.NOTE
    return Finding(
        f"port {port}", state, f"{text}: {', '.join(health.reasons)}", "each reason stands in docs/runbook.md, Posture"
    )


def free_port(port: int, user: str) -> Finding:
    """Whether the default port of a service is free."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        if health := _health(port):
            return health
        advice = "fine if the plane itself uses it; otherwise pick another port for ofp serve or ofp up"
        return Finding(f"port {port}", State.NOTE, f"taken ({user} uses it unless told otherwise)", advice)
    return Finding(f"port {port}", State.WELL, f"free for the {user}" if user.startswith("HTTP") else f"free for {user}")
