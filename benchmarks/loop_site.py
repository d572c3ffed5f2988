"""The whole loop as its users run it: a READY run, a bundle in force, and a process for each part of the way."""

from __future__ import annotations

import base64
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import psycopg
from rich.console import Console

from benchmarks.bench_decisions import bench_bundle
from benchmarks.handbook import simulated
from benchmarks.process_cpu import parent_of, processor_seconds
from benchmarks.servers import free_port
from benchmarks.world import PINS, profile
from ofp_platform.audit.signing_keys import write_key
from ofp_platform.bundles.bundle_registry import BundleRegistry
from ofp_platform.bundles.compatibility import LivePlane
from ofp_platform.cli.demo.loop_steps import loop_profile
from ofp_platform.cli.demo.through_door import stream_world
from ofp_platform.cli.demo.webhook_receiver import HOOK_PATH, STATUS_PATH
from ofp_platform.cli.online.action_commands import ACTING, POLICY_FILE
from ofp_platform.cli.online.audit_commands import APPENDING_EVERY
from ofp_platform.cli.online.decider_commands import READY as DECIDING
from ofp_platform.cli.online.projector_commands import READY as PROJECTING
from ofp_platform.cli.processes import Child, ofp_command, started
from ofp_platform.online.plane import Plane
from ofp_platform.posture.keeper import PostureKeeper
from ofp_platform.vocabulary.loop.action_policy import ActionPolicy, AllowedAction, Webhook
from ofp_platform.vocabulary.loop.bundle import Slot
from ofp_platform.vocabulary.loop.posture import Mode
from ofp_platform.vocabulary.offline.run_facts import TrafficMode
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.world.makers import handbook_world
from ofp_platform_tests.api.keys import KEY, write_principals

_SECRET = "OFP_BENCH_WEBHOOK_SECRET"
AUDIT_SECONDS = 0.02
"""Between two heads: as often as the log can be signed, nearly."""


@dataclass(frozen=True)
class LoopSite:
    """`door`: the address of the ingress; `key`: of a producer; `folder`: what the processes print, and the objects."""

    profile: Profile
    dsn: str
    folder: Path
    door: str
    key: str
    children: tuple[Child, ...]

    def processor_seconds(self) -> dict[str, float]:
        """Of each process until now, and of PostgreSQL; see there."""
        with psycopg.connect(self.dsn) as connection:
            postmaster = parent_of(connection.info.backend_pid)
        pids = {child.name.removeprefix("the "): child.pid for child in self.children}
        return processor_seconds(pids if postmaster is None else {**pids, "PostgreSQL": postmaster})

    def demand_alive(self) -> None:
        """Raise where one of the processes ended.

        Raises:
            CommandRefused: with the end of what it printed.
        """
        for child in self.children:
            if child.ended:
                raise child.failure()


def loop_run(folder: Path, dsn: str, transactions: int) -> Profile:
    """A run of so many transactions that is READY, streamed, projected, with the bundle of bench_decisions in force; NORMAL.
    What is declined is acted on.
    """
    declared = profile("loop", folder)
    world = simulated(folder, transactions)
    stream_world(declared, dsn, lambda: handbook_world(world.path, PINS), Console(quiet=True))
    declared = _acting_on_declines(loop_profile(declared, "transaction"))
    with Plane.open(declared, dsn) as plane:
        projector = plane.projector(plane.ensure_live())
        while projector.apply_available(max_records=50_000) is not None:
            pass
        control, bundle = plane.control_log(create=True), bench_bundle(plane)
        live = LivePlane(plane.known_registry(), has_identity=False)
        engineer, officer = (
            BundleRegistry(plane.pool, plane.objects, control, declared, actor, _now) for actor in ("engineer", "officer")
        )
        engineer.publish(bundle, "benchmark")
        officer.approve(bundle.ref, "benchmark")
        officer.activate(bundle.ref, TrafficMode.FRAUD, Slot.ACTIVE, live, "benchmark")
        PostureKeeper(plane.pool, control, PINS, declared.policy_rev, _now, "operator").hold(Mode.NORMAL, "benchmark")
        plane.decisions_log(create=True)
    return declared


def _acting_on_declines(declared: Profile) -> Profile:
    """The profile of the demo tells a webhook of each decision to review, too; with this bundle that is every second one."""
    assert declared.deciding is not None
    actions = tuple(action for action in declared.deciding.actions if action.outcome == "decline")
    return declared.model_copy(update={"deciding": declared.deciding.model_copy(update={"actions": actions})})


def _now() -> int:
    return time.time_ns() // 1_000


@contextmanager
def loop_site(declared: Profile, folder: Path, dsn: str) -> Iterator[LoopSite]:
    """Door, projector, service, decider, executor of actions, webhook receiver and audit log, each a process, ready."""
    settings, home, receiver_port = folder / "profile.yaml", folder / "home", free_port()  # JSON is YAML
    settings.write_text(declared.model_dump_json(exclude_none=True, exclude={"tiers"}))
    home.mkdir()
    _write_action_policy(home / POLICY_FILE, receiver_port)
    write_key(folder / "audit.key", secrets.token_bytes(32))
    variables = {
        "OFP_HOME": str(home),
        "OFP_DATABASE_URL": dsn,
        "OFP_PROFILE": str(settings),
        "OFP_PRINCIPALS": str(write_principals(folder / "principals.json")),
        "OFP_API_TOKEN": KEY,
        _SECRET: f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}",
    }
    with ExitStack() as stack:
        children: list[Child] = []

        def start(name: str, command: list[str], ready: str) -> str:
            child = started(f"the {name}", command, variables, folder / f"{name.replace(' ', '-')}.log", ready)
            stack.callback(child.stop)
            children.append(child)
            return child.wait_for_line(ready, 1.0) or ""

        receiver = [sys.executable, "-m", "ofp_platform.cli.demo.webhook_receiver", "--port", str(receiver_port)]
        start("webhook receiver", [*receiver, "--secret-variable", _SECRET], "receiving at ")
        start("projector", ofp_command("projector", "run"), PROJECTING)
        address = start("service", ofp_command("serve", "--port", "0"), "serving at ")
        start("decider", ofp_command("decider", "run", "--begin", "head", "--url", address), DECIDING)
        start("executor", ofp_command("action", "run"), ACTING)
        audit = ("audit", "append", "--key", str(folder / "audit.key"), "--every", str(AUDIT_SECONDS))
        start("audit log", ofp_command(*audit), APPENDING_EVERY)
        door = start("door", ofp_command("ingress", "serve", "--port", "0", "--rate", "0"), "serving at ")
        yield LoopSite(declared, dsn, folder, door, KEY, tuple(children))


def _write_action_policy(path: Path, receiver_port: int) -> None:
    address = f"http://127.0.0.1:{receiver_port}"
    policy = ActionPolicy(
        revision=1,
        allow_list=(
            AllowedAction(actor="decider", action_type="hold_account", scope="account"),
            AllowedAction(actor="decider", action_type="tell_payments", scope="payments"),
        ),
        webhooks={
            "payments": Webhook(url=f"{address}{HOOK_PATH}", secret_variable=_SECRET, status_url=f"{address}{STATUS_PATH}{{key}}")
        },
    )
    path.write_bytes(orjson.dumps(policy.wire()))
