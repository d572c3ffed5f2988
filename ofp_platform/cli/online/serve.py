"""`ofp serve`: the HTTP service."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from ofp_platform.cli.environment import Environment, resolve
from ofp_platform.cli.options import Home, ProfileSource
from ofp_platform.cli.process_log import followed_as, log_as

if TYPE_CHECKING:
    from ofp_platform.api.app import Application
    from ofp_platform.api.connection_places import ConnectionLimits
    from ofp_platform.api.tls import Tls
    from ofp_platform.vocabulary.profile import Profile


@dataclass(frozen=True)
class OperatorAccess:
    """By what operators are served. DSNs: `audit`, of a role that may read all that they look at; `decider`, of one that may
    change the posture; `executor`, of one that may settle actions. `action_policy`: the file of the policy that these are under.
    """

    audit: str
    decider: str
    executor: str
    action_policy: Path


def build_application(
    profile: Profile,
    dsn: str,
    reports: Path,
    read_dsn: str | None = None,
    *,
    principals: Path,
    access: Path,
    health: Path,
    operators: OperatorAccess,
    hosts: Sequence[str] = (),
) -> Application:
    """The application of one worker process. `reports`: the folder in which all workers tell what ended in them; `health`:
    that in which they keep health over time.
    """
    from ofp_platform.api.access_log import AccessLog
    from ofp_platform.api.app import Application
    from ofp_platform.api.authentication import Authentication
    from ofp_platform.api.build_requests import BuildRequests
    from ofp_platform.api.case_requests import CaseRequests
    from ofp_platform.api.health_ring import HealthRing
    from ofp_platform.api.http_policy import HttpPolicy
    from ofp_platform.api.operator_views import OperatorViews
    from ofp_platform.api.overviews import Overviews
    from ofp_platform.api.record_requests import RecordRequests
    from ofp_platform.api.request_head import OwnHosts
    from ofp_platform.cli.online.action_requests import ActionRequests
    from ofp_platform.cli.online.posture_requests import PostureRequests
    from ofp_platform.offline.requests.policies import policies_of
    from ofp_platform.online.service.online_service import OnlineService
    from ofp_platform.vocabulary.background_tasks import EndedTasks
    from ofp_platform.vocabulary.identity import pins_digest

    policy = HttpPolicy(
        max_body_bytes=profile.limits.max_body_bytes,
        body_timeout_seconds=profile.http.body_seconds,
        max_in_flight=profile.http.max_requests_under_way,
    )
    ended = EndedTasks(reports)
    service = OnlineService(profile, dsn, ended=ended, read_dsn=read_dsn)
    by_certificate = profile.http.client_certificates == "principals"
    authentication = Authentication(principals, profile.context_pins, time.time, warnings=ended, by_certificate=by_certificate)
    builds = BuildRequests(dsn, limits=profile.builds, policies=policies_of(profile))
    return Application(
        service,
        builds,
        OperatorViews(profile, operators.audit),
        RecordRequests(dsn, profile.context_pins, service.snapshot, service.pack),
        Overviews(profile, operators.audit),
        posture=PostureRequests(profile, operators.decider, _now),
        authentication=authentication,
        cases=CaseRequests(dsn, profile.context_pins, service.pack),
        actions=ActionRequests(profile, operators.executor, operators.action_policy, _now),
        hosts=OwnHosts(hosts),
        access=AccessLog(access, time.time),
        ring=HealthRing(health / f"{pins_digest(profile.context_pins)[:16]}.ring"),
        ended=ended,
        policy=policy,
    )


def _now() -> int:
    return time.time_ns() // 1_000


def _is_loopback(host: str) -> bool:
    """Whether an address to bind is this machine's alone; of names, `localhost` is."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def front_of(
    environment: Environment, host: str, tls_certificate: Path | None, tls_key: Path | None, tls_client_ca: Path | None
) -> tuple[ConnectionLimits, Tls | None]:
    """The bounds of connections and the TLS of a service, refused in words here rather than in each worker.

    Raises:
        CommandRefused: options that do not go together, or keys that would cross a network in plain text.
        PrincipalsError: see there.
    """
    from ofp_platform.api.connection_places import ConnectionLimits
    from ofp_platform.api.principals import read_principals
    from ofp_platform.api.tls import Tls
    from ofp_platform.cli.terminal.refusals import CommandRefused

    tls = None
    if tls_certificate is not None and tls_key is not None:
        tls = Tls(tls_certificate, tls_key, tls_client_ca)
    elif (tls_certificate, tls_key, tls_client_ca) != (None, None, None):
        raise CommandRefused("TLS needs --tls-certificate and --tls-key, both")
    http = environment.load_profile().http
    if http.client_certificates == "principals" and tls_client_ca is None:
        raise CommandRefused("the profile says http.client_certificates: principals, so that --tls-client-ca is needed")
    limits = ConnectionLimits(
        places=http.max_connections,
        places_of_a_peer=http.max_connections_of_a_peer,
        lane=http.reserved_connections,
        head_seconds=http.head_seconds,
        unread_seconds=http.unread_seconds,
        unread_bytes=http.unread_bytes,
        handshakes=http.max_handshakes,
        handshake_seconds=http.handshake_seconds,
    )
    read_principals(environment.principals_file)
    if environment.tier.value == "production" and tls is None and not _is_loopback(host):
        raise CommandRefused(
            f"keys would cross the network to {host} in plain text: in production give --tls-certificate and --tls-key, or"
            " bind the loopback"
        )
    return limits, tls


def serve(
    host: Annotated[str, typer.Option(help="Address to bind.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 chooses a free one.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Another name that requests may carry in their header Host.")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="Serve by TLS with this certificate (PEM, with its chain); read again when it changes.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The key of --tls-certificate.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="Let only those connect who show a certificate of this authority.")
    ] = None,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Serve features over HTTP until SIGTERM or Ctrl-C; prints the address as soon as it answers."""
    from ofp_platform.api import health_ring, server
    from ofp_platform.api.access_log import FOLDER
    from ofp_platform.cli.online.action_commands import action_policy_file
    from ofp_platform.storage.postgres import asyncpg_arguments
    from ofp_platform.vocabulary.background_tasks import EndedTasks

    environment = resolve(home, profile)
    declared_profile = environment.load_profile()
    log_as("serve", declared_profile.context_pins, environment)
    dsn, read_dsn = environment.dsn("serving"), environment.read_dsn()
    # refused here in words, rather than in each worker
    for address in filter(None, (dsn, read_dsn)):
        asyncpg_arguments(address)
    limits, tls = front_of(environment, host, tls_certificate, tls_key, tls_client_ca)
    # the plane is opened inside each worker: this process must hold no pools or threads when it forks them
    with TemporaryDirectory(prefix="ofp-serve-") as reports:
        application = partial(
            build_application,
            declared_profile,
            dsn,
            Path(reports),
            read_dsn,
            principals=environment.principals_file,
            access=environment.folder / FOLDER,
            health=environment.folder / health_ring.FOLDER,
            hosts=(host, *(allow_host or ())),
            operators=OperatorAccess(
                environment.audit_dsn(dsn),
                environment.decider_dsn(dsn),
                environment.executor_dsn(dsn),
                action_policy_file(environment, declared_profile),
            ),
        )
        factory = partial(followed_as, "serve", declared_profile.context_pins, environment, application)
        server.serve(factory, host, port, workers, limits=limits, tls=tls, ended=EndedTasks(Path(reports)))
