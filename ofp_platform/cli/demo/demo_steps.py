"""The steps of the demo, one after the other, and what each of them found."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from ruamel.yaml import YAML

from ofp_platform.cli.demo.decision_stops import Stop, find_stops
from ofp_platform.cli.demo.decisions import ask_verified, measure, request_for, values_digest
from ofp_platform.cli.demo.demo_events import Replay, handbook_file, simulated_payments
from ofp_platform.cli.demo.loop_steps import LoopSteps, loop_profile
from ofp_platform.cli.demo.offline_steps import OfflineSteps
from ofp_platform.cli.demo.replay import project_available, record_ends, recorded_ends
from ofp_platform.cli.demo.ring_steps import RingSteps, ring_profile
from ofp_platform.cli.demo.summary import accounting, facts, heading, latencies, unaccounted
from ofp_platform.cli.demo.through_door import reconciliation_words, stream_world
from ofp_platform.cli.environment import Environment, with_tier
from ofp_platform.cli.offline.training_set import HANDBOOK, SIMULATED
from ofp_platform.cli.online.decide import KnownService, add, decide_on, point_of, serving, words_of
from ofp_platform.cli.online.newest_events import newest_events
from ofp_platform.cli.processes import program
from ofp_platform.cli.terminal.progress import bar, done
from ofp_platform.cli.terminal.readable_json import readable_response
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.client import OfpClient, ReceivedFeatures
from ofp_platform.decisions.event_reader import EventReader
from ofp_platform.decisions.loop import Tally
from ofp_platform.ingress.reconciliation import IngressReconciliation
from ofp_platform.offline.parity.forensic_rebuild import RunPolicies, rebuild_recorded
from ofp_platform.offline.sources.stream_records import StreamRecords
from ofp_platform.online.plane import Plane
from ofp_platform.online.state.progress import read_progress
from ofp_platform.online.state.projection import ProjectionRow
from ofp_platform.storage.schema import migrate
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.profile import WIRING, Profile, Tier
from ofp_platform.vocabulary.serving import GetFeaturesRequest, SnapshotRecord

_STORED_SECONDS = 10.0
_TAIL = 500
_STOPS = 20
_DECISIONS = 200
_ROUNDS = 2
GroupName = tuple[str, str]
_SHOWN: Collection[GroupName] = {("account_activity", "v1"), ("merchant_risk", "v1")}  # both shipped packs have them


@dataclass
class DemoSteps:
    """One run of the demo. `lasting`: what it makes is still there when it ends."""

    environment: Environment
    events: Path | None
    log_kind: str
    payments: int
    kinesis_endpoint: str | None
    lasting: bool
    console: Console = field(default_factory=Console, init=False)
    _reconciliation: IngressReconciliation | None = field(default=None, init=False)
    _decided_from: Basis | None = field(default=None, init=False)

    def run(self) -> None:
        """All steps.

        Raises:
            CommandRefused: something does not add up; the text says what.
        """
        start = time.monotonic()
        dsn = self.environment.dsn("owner")
        migrate(dsn)
        is_embedded = self.environment.database_url is None
        where = f"embedded, in {self.environment.postgres_folder}" if is_embedded else "the one that OFP_DATABASE_URL names"
        done(self.console, "PostgreSQL", where)
        replay = self._replay()
        if self.kinesis_endpoint is not None:
            profile = replay.profile.model_copy(update={"kinesis_endpoint_url": self.kinesis_endpoint})
            replay = replace(replay, profile=profile)
        with Plane.open(replay.profile, dsn) as plane:
            ends = self._fill(plane, replay)
            row = plane.ensure_live()
            stops = self._project(plane, row, replay, ends)
            profile_source = self._profile_source(replay)
            with serving(self.environment, profile_source, dsn, "demo-serve.log") as service:
                done(self.console, "HTTP service", f"answers at {service.address} while the demo runs")
                self._decide(plane, row, stops, service)
                row = plane.row(row.projection_id)
                shown_answer = self._ask_and_prove(plane, row, replay, service)
            heading(self.console, "From the log to a training set")
            training_set, trees = (SIMULATED, 50) if self.events is None else (HANDBOOK, 100)
            half = OfflineSteps(self.environment, plane, ends, training_set, trees, self.console)
            manifest = half.run()
        self._loop(replay, dsn, profile_source, half)
        if self.events is None:
            self._show_ring(dsn)
        if self.lasting:
            self._where_next(profile_source, shown_answer, manifest)
        heading(self.console, f"Done in {time.monotonic() - start:.0f} s")

    def _loop(self, replay: Replay, dsn: str, profile_source: str, half: OfflineSteps) -> None:
        """The plane itself decides on the last records, and what follows from that."""
        heading(self.console, "From decisions to actions, labels and proof")
        profile = loop_profile(replay.profile, replay.event_type)
        assert self._decided_from is not None
        with (
            Plane.open(profile, dsn) as plane,
            serving(self.environment, profile_source, dsn, "demo-loop.log") as service,
        ):
            LoopSteps(self.environment, plane, service, self._decided_from, half, self.console).run()

    def _show_ring(self, dsn: str) -> None:
        """The ring of accounts, on streams of its own beside the payments."""
        shipped = self.environment.read_profile(with_tier("rings", self.environment.tier))
        profile = ring_profile(shipped, self.log_kind)
        if self.kinesis_endpoint is not None:
            profile = profile.model_copy(update={"kinesis_endpoint_url": self.kinesis_endpoint})
        RingSteps(self.environment, profile, dsn, self.console).run()

    def _replay(self) -> Replay:
        if self.events is not None:
            return handbook_file(self._shipped_profile(), self.events, log_kind=self.log_kind)
        replay = simulated_payments(self._shipped_profile(), self.payments, log_kind=self.log_kind)
        done(self.console, "Simulated", f"{replay.records:,} records")
        return replay

    def _profile_source(self, replay: Replay) -> str:
        """The profile of this run, as another process can name it: shipped, or written into the home folder."""
        if replay.profile == self._shipped_profile():
            return self._shipped_source
        path = self.environment.folder / "profiles" / f"{replay.profile.stream_name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            content = replay.profile.model_dump(mode="json", exclude_none=True, exclude={"tiers"})
            if self.environment.tier is not Tier.LOCAL:  # whoever reads it has the same environment
                content = {name: value for name, value in content.items() if name not in WIRING}
            YAML(typ="safe", pure=True).dump(content, file)
        return with_tier(str(path), self.environment.tier)

    @property
    def _shipped_source(self) -> str:
        return with_tier("demo" if self.events is None else "handbook", self.environment.tier)

    def _shipped_profile(self) -> Profile:
        return self.environment.read_profile(self._shipped_source)

    def _fill(self, plane: Plane, replay: Replay) -> Basis:
        """Bring the replay into the log, through its door; where the replay ends."""
        receipt_file = self.environment.folder / "replays" / f"{replay.profile.stream_name}.json"
        ends = recorded_ends(receipt_file, replay, plane.log.ends())
        self._reconciliation = stream_world(replay.profile, plane.dsn, replay.make_world, self.console)
        return ends or record_ends(receipt_file, replay, plane.log.ends())

    def _project(self, plane: Plane, row: ProjectionRow, replay: Replay, ends: Basis) -> list[Stop]:
        """Project all but the last records, which are projected while decisions are made on them."""
        reader = EventReader(plane.log, plane.profile.context_pins, replay.event_type, plane.profile.clock_skew_us)
        # decided on while they are fresh: at each stop, half of what lateness allows is never behind
        longest = plane.profile.allowed_lateness_us // 2
        begin, stops = find_stops(reader, ends, min(self._decision_count, replay.records // 3), _STOPS, longest)
        self._decided_from = _fresh_from(begin, stops, plane.profile.allowed_lateness_us)
        behind = sum(plane.log.ordinal_lag(row.basis).values())
        with bar(self.console, "Projecting", behind) as advance:
            result = project_available(plane.projector(row), plane.profile.batch_records, advance, begin)
        if result.records:
            rate = f"{result.records / result.seconds:,.0f} events/s in {result.commits} commits"
            done(self.console, "Projected", f"{result.records:,} records in {result.seconds:.1f} s, {rate}")
        else:
            done(self.console, "Projected", "nothing: the projection is at the head of the log")
        return stops

    @property
    def _decision_count(self) -> int:
        """Number of the last records to decide on; about that many served vectors are proven later."""
        return 3_000 if self.events is None else 12_000

    def _decide(self, plane: Plane, row: ProjectionRow, stops: list[Stop], service: KnownService) -> None:
        """Project the last records, stop by stop, and decide on the events of each as a decision service does."""
        projector, point = plane.projector(row), point_of(plane)
        batch_records = plane.profile.batch_records
        tally, commits, start = Tally(), 0, time.monotonic()
        with bar(self.console, "Projecting and deciding", sum(len(stop.events) for stop in stops)) as advance:
            for stop in stops:
                commits += project_available(projector, batch_records, lambda records: None, stop.basis).commits
                add(tally, decide_on(plane, point, stop.events, service, advance=advance))
        project_available(projector, batch_records, lambda records: None)  # what others have appended behind the replay
        seconds = time.monotonic() - start
        rate = f", in {seconds:.1f} s, {tally.recorded / seconds:,.0f}/s, over {commits} commits" if tally.recorded else ""
        done(self.console, "Decided on fresh events", words_of(tally) + rate)

    def _ask_and_prove(self, plane: Plane, row: ProjectionRow, replay: Replay, service: KnownService) -> str:
        """Ask for features, prove and measure the answers, print them; return the hash of the answer that was shown."""
        registry = plane.registry_of(row)
        pins = replay.profile.context_pins
        # a decision is made while its event is fresh: an as-of further back may lie behind the horizon
        oldest = (row.watermark or 0) - plane.profile.allowed_lateness_us
        latest = newest_events(EventReader(plane.log, pins, replay.event_type, plane.profile.clock_skew_us), _TAIL)
        # where a week of fraud reports follows the last transaction, none is: then it is asked as of the first time in reach
        fresh = [event for event in latest if event.ts >= oldest] or [replace(event, ts=oldest) for event in latest]
        events = fresh[-_DECISIONS:]

        def requests(groups: Collection[GroupName] | None = None, *, causal: bool) -> list[GetFeaturesRequest]:
            made = (request_for(event, registry, replay.event_type, pins, groups=groups, causal=causal) for event in events)
            return [request for request in made if request is not None]

        whole = requests(causal=True)
        if not whole:
            raise CommandRefused("the log holds no event to decide on")
        size = f"{len(whole[0].feature_keys)} keys, {len(whole[0].feature_groups)} groups"
        with OfpClient(service.address, token=service.token) as client:
            answers = ask_verified(client, whole)
            done(self.console, "Asked for features", f"{len(answers)} decisions, every hash recomputed from its response")
            shown_answer = ask_verified(client, requests(_SHOWN, causal=True)[-1:])[0]
            record = self._stored(client, shown_answer.provenance.feature_snapshot_hash)
            self._rebuild(plane, row, record)
            measured_answers = [
                measure(client, "1 key, 1 group", requests({min(registry.groups)}, causal=False), _ROUNDS),
                measure(client, size, requests(causal=False), _ROUNDS),
                measure(client, f"{size}, the event itself in the basis", whole, _ROUNDS),
            ]
        with plane.pool.connection() as connection:
            totals = read_progress(connection, row.projection_id)
        heading(self.console, "What was replayed")
        facts(self.console, replay.facts)
        if self._reconciliation is not None:
            heading(self.console, "Through the door")
            facts(self.console, [("reconciliation", reconciliation_words(self._reconciliation))])
        heading(self.console, "What became of it")
        facts(self.console, accounting(totals))
        if missing := unaccounted(totals):
            raise CommandRefused(f"{missing} records are in none of the counts above: this is a defect of the projector")
        self._show(shown_answer, answers)
        heading(self.console, "How fast it was served (HTTP, one request after the other)")
        latencies(self.console, measured_answers)
        return shown_answer.provenance.feature_snapshot_hash

    def _stored(self, client: OfpClient, snapshot_hash: str) -> SnapshotRecord:
        """The record that the service keeps of what it served; it is written off the request path."""
        deadline = time.monotonic() + _STORED_SECONDS
        while True:
            try:
                return client.get_snapshot(snapshot_hash)
            except ContractError as error:
                if error.reason is not Reason.UNKNOWN_SNAPSHOT or time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def _rebuild(self, plane: Plane, row: ProjectionRow, record: SnapshotRecord) -> None:
        start = time.monotonic()
        records = sum(plane.log.ordinal_lag(row.basis.model_copy(update={"partitions": ()})).values())
        stream_records = StreamRecords(plane.log, plane.archive)
        registry, policies = plane.registry_of(row), RunPolicies.of(plane.profile)
        with bar(self.console, "Rebuilding a snapshot", records) as advance, TemporaryDirectory() as folder:
            rebuilt = rebuild_recorded(
                stream_records, registry, row.pins, policies, record.hashed, Path(folder) / "replay", advance
            )
        if rebuilt.hash != record.feature_snapshot_hash:
            raise CommandRefused(f"snapshot {record.feature_snapshot_hash} was served, the log gives {rebuilt.hash}")
        seconds = time.monotonic() - start
        done(self.console, "Rebuilt a snapshot", f"from the log alone, in {seconds:.1f} s: the same hash")

    def _show(self, shown_answer: ReceivedFeatures, answers: list[ReceivedFeatures]) -> None:
        heading(self.console, f"One whole response, to the decision on {shown_answer.provenance.request_id}")
        self.console.print(readable_response(shown_answer.body), highlight=False, markup=False, soft_wrap=True)
        heading(self.console, "Its proof")
        proofs = [
            ("snapshot hash", shown_answer.provenance.feature_snapshot_hash),
            ("recomputed", "equal: from the response, from the stored record, and from the log folded again up to its basis"),
            ("values digest", f"{values_digest(answers)} of {len(answers)} decisions: the same on any log"),
        ]
        facts(self.console, proofs)

    def _where_next(self, profile_source: str, snapshot_hash: str, manifest: DatasetManifest | None) -> None:
        options = "" if profile_source == "demo" else f" --profile {profile_source}"
        if self.environment.home != Path(".ofp"):
            options += f" --home {self.environment.home}"
        heading(self.console, "Where to look next")
        ofp = program()
        places = [
            ("everything at once", f"{ofp} up{options}"),
            ("counts, lag, watermark", f"{ofp} projector status{options}"),
            ("the feature groups", f"{ofp} registry show{options}"),
            ("the stored snapshot", f"{ofp} snapshot show {snapshot_hash}{options}"),
        ]
        if manifest is not None:
            dataset = f"{manifest.dataset_name}:{manifest.dataset_identity[:12]}"
            places += [
                ("the training set", f"{ofp} dataset show {dataset}{options}"),
                ("opened with pandas", f"{ofp} dataset load {dataset}{options}"),
                ("from log to model", f"{ofp} up{options}, then Dagster's lineage at the address that it prints"),
            ]
        places.append(("the first request, slowly", "docs/tutorial.md"))
        facts(self.console, places)


def _fresh_from(begin: Basis, stops: list[Stop], lateness: int) -> Basis:
    """From where on every event is fresh once all of them are projected: half of what lateness allows (microseconds)."""
    latest = max((event.ts for stop in stops for event in stop.events), default=0)
    fresh_from = stops[-1].basis if stops else begin
    for before, stop in zip([begin, *(stop.basis for stop in stops)][-2::-1], stops[::-1], strict=True):
        if any(event.ts < latest - lateness // 2 for event in stop.events):
            break
        fresh_from = before
    return fresh_from
