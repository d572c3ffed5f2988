"""The processes of `ofp up`: started in the order of their needs, watched, stopped together."""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib import resources

import typer

from ofp_platform.cli.environment import ConnectsAs, Environment
from ofp_platform.cli.installation.local_principals import CONSOLE, ensure_local_principals, key_file
from ofp_platform.cli.offline.archive_commands import KEEPING
from ofp_platform.cli.online.projector_commands import READY
from ofp_platform.cli.processes import Child, ofp_command, tool_command
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.cli.up.dagster_instance import write_instance
from ofp_platform.cli.up.home_lock import held_home
from ofp_platform.cli.up.readiness import chosen_port, daemons_ready, service_follows, wait_until, webserver_ready
from ofp_platform.cli.up.restarts import Restarts
from ofp_platform.cli.up.traffic import trickle
from ofp_platform.online.plane import Plane, profile_pack
from ofp_platform.storage.embedded import embedded_listens
from ofp_platform.storage.schema import migrate
from ofp_platform.vocabulary.background_tasks import BackgroundTasks
from ofp_platform.vocabulary.profile import Profile

_READY_SECONDS = 60.0
_DAGSTER_SECONDS = 120.0
_WATCH_SECONDS = 0.5
_AGAIN_SECONDS = 15.0
_SIMULATED_PACK = "card_payments"
_DEFINITIONS = ("-m", "ofp_platform.definitions")


def _dagster_form(environment: Environment) -> str:
    """The name that Dagster has for the form of the log: JSON where none is asked for, like the other parts."""
    return "colored" if environment.log_form == "text" else "json"


@dataclass
class PlaneProcesses:
    """Everything that `ofp up` runs. `stop` ends it; `may_launch`: Dagster's pages may change things."""

    environment: Environment
    stop: threading.Event
    may_launch: bool = False
    _children: list[Child] = field(default_factory=list)
    _projector: Child | None = None
    _projector_again_at: float = 0.0
    _refusal: str | None = None
    _tasks: BackgroundTasks = field(default_factory=BackgroundTasks)
    _restarts: Restarts = field(default_factory=Restarts)
    _due: dict[str, float] = field(default_factory=dict)
    _commands: dict[str, tuple[list[str], dict[str, str], ConnectsAs | None]] = field(default_factory=dict)

    def run(self, *, port: int, dagster_port: int | None, simulate: float) -> None:
        """Start, say what is ready, wait for the stop, stop. `dagster_port` None: without Dagster.

        Raises:
            CommandRefused: another `ofp up` runs on this home; something cannot be started, or ended by itself, and everything
                else was stopped.
        """
        with held_home(self.environment.folder):
            self._run(port, dagster_port, simulate)

    def _run(self, port: int, dagster_port: int | None, simulate: float) -> None:
        profile = self.environment.load_profile()
        if simulate and (pack_id := profile_pack(profile).pack_id) != _SIMULATED_PACK:
            raise CommandRefused(f"--simulate makes events of the pack {_SIMULATED_PACK}; the profile has {pack_id}")
        port = chosen_port(port, "--port")
        dagster_port = None if dagster_port is None else chosen_port(dagster_port, "--dagster-port")
        dsn = self.environment.dsn("owner")
        migrate(dsn)
        self._say("PostgreSQL", dsn if self.environment.database_url is None else "as OFP_DATABASE_URL says")
        for name in ensure_local_principals(self.environment, profile.context_pins):
            self._say("key", f"of {name}: {key_file(self.environment, name)}")
        with ExitStack() as stack:
            stack.callback(self._say, "stopped", "")
            variables = self._variables(dsn)
            self._start_plane(stack, variables, port)
            self._start_archiver(stack, variables)
            if dagster_port is not None:
                self._start_dagster(stack, variables, dagster_port)
            if simulate and not self.stop.is_set():
                self._start_traffic(stack, profile, dsn, simulate)
            if not self.stop.is_set():
                self._say("ready", "Ctrl-C stops everything")
            while not self.stop.wait(_WATCH_SECONDS):
                self._keep_postgres(dsn)
                for child in list(self._children):
                    if child.ended and child is not self._projector:
                        self._start_again(stack, child)
                self._keep_projector(stack, variables, profile, dsn)
                for task in self._tasks.ended.own:
                    raise CommandRefused(f"{task.name} ended ({task.why}); its trace stands above")
            self._say("stopping", "")
            for child in self._children:
                child.ask_to_end()  # all at once: each of them may stop at any point

    def _keep_projector(self, stack: ExitStack, variables: dict[str, str], profile: Profile, dsn: str) -> None:
        """A projector that may not read on ends in words; what is applied is served on, and it is tried again.

        Raises:
            CommandRefused: it ended for another reason.
        """
        projector = self._projector
        if projector is None or not projector.ended or time.monotonic() < self._projector_again_at:
            return
        with Plane.open_without_log(profile, self.environment.dsn_of_role(dsn, "projector"), max_connections=2) as plane:
            live = plane.live()
            refusal = None if live is None else plane.reading_refusal(live.basis)
        if refusal is None and self._refusal is None:
            self._projector = self._start_again(stack, projector)
            return
        if refusal is not None and refusal != self._refusal:
            self._say("projector", f"refuses to go on: {refusal}")
            self._say("", f"the service goes on with what is applied (posture RED); tried again every {_AGAIN_SECONDS:g} s")
        self._refusal, self._projector_again_at = refusal, time.monotonic() + _AGAIN_SECONDS
        if refusal is None:
            self._children.remove(projector)
            self._projector = self._start(stack, "projector", ofp_command("projector", "run"), variables, "projector")
            self._say("projector", "started again")

    def _start_again(self, stack: ExitStack, child: Child) -> Child:
        """A child that ended by itself is started again after a pause, the same one until then.

        Raises:
            CommandRefused: it ended too often within a while.
        """
        now = time.monotonic()
        due = self._due.get(child.name)
        if due is None:
            pause = self._restarts.pause(child.name, now)
            if pause is None:
                raise child.failure()
            self._say(child.name, f"ended by itself; started again in {pause:g} s (the end of {child.output} may say why)")
            self._due[child.name] = now + pause
            return child
        if now < due:
            return child
        del self._due[child.name]
        self._children.remove(child)
        new_child = self._start(stack, child.name, *self._commands[child.name])
        self._say(child.name, "started again")
        return new_child

    def _keep_postgres(self, dsn: str) -> None:
        """Start the embedded server again where it was killed: whoever waits for it then goes on by itself."""
        if self.environment.database_url is None and not embedded_listens(dsn):
            self._say("PostgreSQL", "is gone; starting it again")
            self.environment.dsn("owner")
            self._say("PostgreSQL", "is back")

    def _variables(self, dsn: str) -> dict[str, str]:
        """The environment of the children: the same home, database and profile, by absolute names."""
        return {
            "OFP_HOME": str(self.environment.folder),
            "OFP_DATABASE_URL": dsn,
            "OFP_ROLE_PER_JOB": str(self.environment.database_url is None or self.environment.role_per_job),
            "OFP_DAGSTER_POSTGRES_URL": os.environ.get("OFP_DAGSTER_POSTGRES_URL") or dsn,
            "OFP_PROFILE": self.environment.lasting_profile_source,
            "OFP_PRINCIPALS": str(self.environment.principals_file),
            "DAGSTER_HOME": str(self.environment.dagster_folder),
        }

    def _start(
        self, stack: ExitStack, name: str, command: list[str], variables: dict[str, str], role: ConnectsAs | None = None
    ) -> Child:
        """A child; with one job, it is told no other role than that of it. Dagster's take one for each thing that they do."""
        self._commands[name] = (command, variables, role)
        dsn = variables["OFP_DATABASE_URL"]
        if role is not None:
            variables = {**variables, "OFP_DATABASE_URL": self.environment.dsn_of_role(dsn, role)}
        if role == "serving":
            variables["OFP_AUDIT_DATABASE_URL"] = self.environment.audit_dsn(dsn)
            variables["OFP_DECIDER_DATABASE_URL"] = self.environment.decider_dsn(dsn)
            variables["OFP_EXECUTOR_DATABASE_URL"] = self.environment.executor_dsn(dsn)
        output = self.environment.folder / "logs" / f"{name.replace(' ', '-').lower()}.log"
        child = stack.enter_context(Child(name, command, variables, output))
        self._children.append(child)
        return child

    def _start_plane(self, stack: ExitStack, variables: dict[str, str], port: int) -> None:
        projector = self._projector = self._start(stack, "projector", ofp_command("projector", "run"), variables, "projector")
        service = self._start(stack, "HTTP service", ofp_command("serve", "--port", str(port)), variables, "serving")
        is_ready = projector.wait_for_line(READY, _READY_SECONDS, self.stop)
        if is_ready is not None:
            self._say("projector", f"{READY} {is_ready}")
        address = service.wait_for_line("serving at ", _READY_SECONDS, self.stop)
        if address is not None and wait_until(service, lambda: service_follows(address), _READY_SECONDS, self.stop):
            self._say("HTTP service", f"{address}  (page of the API: {address}/docs)")
            self._say("console", f"{address}/console  (asks for a key: {key_file(self.environment, CONSOLE)} has one)")

    def _start_archiver(self, stack: ExitStack, variables: dict[str, str]) -> None:
        archiver = self._start(stack, "archiver", ofp_command("archive", "keep"), variables, "offline")
        stream_name = archiver.wait_for_line(KEEPING, _READY_SECONDS, self.stop)
        if stream_name is not None:
            self._say("archiver", f"{KEEPING} {stream_name}")

    def _start_dagster(self, stack: ExitStack, variables: dict[str, str], port: int) -> None:
        if self.stop.is_set():
            return
        folder = self.environment.dagster_folder
        folder.mkdir(parents=True, exist_ok=True)
        instance = resources.files("ofp_platform.cli.up").joinpath("dagster_instance.yaml").read_text(encoding="utf-8")
        if not write_instance(folder, instance):
            self._say("Dagster", f"{folder / 'dagster.yaml'} is not as `ofp up` wrote it: it is used as it is")
        address = f"http://127.0.0.1:{port}"
        session = secrets.token_urlsafe(32)
        command = [sys.executable, "-m", "ofp_platform.orchestration.guarded_webserver", "--port", str(port)]
        command += ["--launch"] if self.may_launch else []
        webserver = self._start(stack, "Dagster UI", command, {**variables, "OFP_DAGSTER_SESSION": session})
        daemon_command = tool_command("dagster-daemon", "run", "--log-format", _dagster_form(self.environment), *_DEFINITIONS)
        daemon = self._start(stack, "Dagster daemon", daemon_command, variables)
        if wait_until(webserver, lambda: webserver_ready(address, session), _DAGSTER_SECONDS, self.stop):
            # the session stands in this one line, for whoever started it, and in no file
            self._say("Dagster UI", f"{address}/?session={session}" + ("" if self.may_launch else "  (read-only; --launch)"))
        if wait_until(daemon, lambda: daemons_ready(address, session), _DAGSTER_SECONDS, self.stop):
            self._say("Dagster daemon", "running")

    def _start_traffic(self, stack: ExitStack, profile: Profile, dsn: str, rate: float) -> None:
        # who appends may not look at projections
        with Plane.open_without_log(profile, self.environment.dsn_of_role(dsn, "projector"), max_connections=1) as projected:
            row = projected.live()
        watermark = None if row is None else row.watermark
        ingress = self.environment.dsn_of_role(dsn, "ingress")
        plane = stack.enter_context(Plane.open(profile, ingress, max_connections=2))
        quiet = threading.Event()
        thread = self._tasks.start_thread("simulated traffic", partial(trickle, plane, watermark, rate), quiet)
        stack.callback(thread.join)
        stack.callback(quiet.set)
        self._say("simulated", f"{rate:g} payments a second into stream {profile.stream_name}")

    def _say(self, name: str, text: str) -> None:
        typer.echo(f"{name:<16}{text}".rstrip())
