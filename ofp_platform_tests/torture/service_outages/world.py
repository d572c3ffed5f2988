"""One plane on the disturbed services: projector, HTTP service and archiver as `ofp` runs them, under load, and what must hold
of it after each outage. Nobody is restarted.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psycopg
from psycopg import conninfo
from psycopg_pool import PoolTimeout

from ofp_platform.api.principals import Principal, Scope, changed_principals, new_key
from ofp_platform.cli.offline.archive_commands import KEEPING
from ofp_platform.cli.online.projector_commands import READY
from ofp_platform.cli.processes import Child, ofp_command
from ofp_platform.log.archive import archive_up_to
from ofp_platform.log.archive_check import cross_check
from ofp_platform.log.archive_verify import verify_partition
from ofp_platform.log.port import EventLog, LogUnavailable, StreamNotFound
from ofp_platform.offline.parity.forensic_rebuild import RunPolicies
from ofp_platform.offline.runs.build_context import BuildContext
from ofp_platform.offline.runs.run_parity import RunToProve, prove_run
from ofp_platform.online.plane import Plane
from ofp_platform.online.serving.snapshot_store import SnapshotStore
from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.simulation.deliveries import Deliveries
from ofp_platform.simulation.disturbances import Disturbances
from ofp_platform.simulation.payments import PaymentSimulation, simulate_payments
from ofp_platform.simulation.population import PopulationSize
from ofp_platform.storage.objects import ObjectStoreUnavailable
from ofp_platform.storage.postgres import DatabaseUnavailable
from ofp_platform.storage.roles import Job, default_role
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.position import Basis
from ofp_platform_tests.oracle.simulated_log import PINS, RANGE_SIZE
from ofp_platform_tests.torture.faults.oracle import LogOracle, questions_about
from ofp_platform_tests.torture.faults.periods import persist
from ofp_platform_tests.torture.faults.world import NAMES, Answered
from ofp_platform_tests.torture.service_outages.load import Load
from ofp_platform_tests.torture.service_outages.services import Disturbed, DisturbedServices, Outage

READY_SECONDS = 120.0
PACE_SECONDS = 0.2
"""Between two batches of a producer: the naive fold has to keep up with all of it."""
NAMED_SECONDS = 30.0
"""Health names a service that is away by then."""
RECOVERY_SECONDS = 120.0
SILENT_RECOVERY_SECONDS = 180.0
"""A connection that the network lost without a word is given up in `postgres.SILENT_SECONDS` where nothing acknowledges less."""
_PASSING = (LogUnavailable, DatabaseUnavailable, PoolTimeout, ObjectStoreUnavailable, psycopg.OperationalError, StreamNotFound)
_SAMPLE = 12
_RESENT = {"kinesis": 7}
"""How often an append sends a record again whose outcome Kinesis did not tell: copies, which count once."""
_LOST = ("LOG_TAIL_LOST", "LOG_IS_ANOTHER", "HISTORY_LOST", "PARTITION_VANISHED")


@dataclass
class Found:
    """What the outages of one service came to."""

    outages: int = 0
    hung: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    named_seconds: list[float] = field(default_factory=list)
    recovery_seconds: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class OutageWorld:
    """A plane whose log is of one kind, its processes and its load. A context manager."""

    def __init__(
        self, services: DisturbedServices, log_kind: str, folder: Path, seed: int, *, records: int, readers: int
    ) -> None:
        folder.mkdir()
        self.services = services
        self.log_kind = log_kind
        self.folder = folder
        self.chance = Random(seed)
        wiring = services.wiring
        path = folder / "profile.yaml"
        content = {
            "profile_name": "outages",
            "stream_name": f"payments-{log_kind}",
            "log_kind": log_kind,
            "partitions": 2,
            "partition_key": "payload.account_id",
            "context_pins": PINS,
            "pack": "card_payments",
            "range_size": RANGE_SIZE,  # small: ranges close while the outage lasts
            "batch_records": 500,
            "allowed_lateness": "30d",
        }
        path.write_text(json.dumps(content), encoding="utf-8")
        self.home = folder / "home"
        self.home.mkdir()
        self.environment = {**wiring, "OFP_HOME": str(self.home), "OFP_PROFILE": f"{path}@local_parity"}
        self.deliveries = _payments(records, seed % 1_000)
        self.registry = compile_pack(shipped_pack("card_payments"))
        self.questions = questions_about(self.deliveries, self.registry, NAMES)
        self.stack = ExitStack()
        self.readers, self.seed = readers, seed
        self.checked_receipts = self.checked_served = 0

    def __enter__(self) -> OutageWorld:
        try:
            self._start()
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stack.close()

    def _start(self) -> None:
        from ofp_platform.cli.environment import Environment

        key, hashed_key = new_key()
        content = {"name": "load", "scopes": tuple(Scope), "runs": "*", "keys": [hashed_key.model_dump()]}
        with changed_principals(self.home / "principals.json") as box:
            box[0] = box[0].replacing(Principal.model_validate(content))
        self.profile = Environment(profile=self.environment["OFP_PROFILE"]).load_profile()
        self.projector = self._child("projector", Job.PROJECTOR, "projector", "run")
        self.projector.wait_for_line(READY, READY_SECONDS)
        serve = ("serve", "--port", "0", "--workers", "2")
        self.service = self._child("service", Job.SERVING, *serve)
        self.archiver = self._child("archiver", Job.OFFLINE, "archive", "keep", "--every", "1")
        address = self.service.wait_for_line("serving at ", READY_SECONDS)
        self.archiver.wait_for_line(KEEPING, READY_SECONDS)
        assert address is not None
        # past the proxies, for those who look
        direct = self.profile.model_copy(
            update={
                "object_store_endpoint_url": self.services.objects.service.endpoint,  # type: ignore[union-attr]
                "kinesis_endpoint_url": self.services.kinesis.service.endpoint,  # type: ignore[union-attr]
            }
        )
        self.direct = self.stack.enter_context(Plane.open(direct, self.services.dsn))
        self.oracle = LogOracle(self.direct.log, self.profile, self.registry)
        self.load = Load(
            self._open_log, self.deliveries, self.questions, self.profile.context_pins, address, key, self.seed,
            readers=self.readers, pace_seconds=PACE_SECONDS,
        )  # fmt: skip
        self.load.start()
        self.stack.callback(lambda: self.load.stop(RECOVERY_SECONDS))

    def _child(self, name: str, job: Job, *command: str) -> Child:
        dsn = conninfo.make_conninfo(self.environment["OFP_DATABASE_URL"], user=default_role(job))
        variables = {**self.environment, "OFP_DATABASE_URL": dsn}
        return self.stack.enter_context(Child(name, ofp_command(*command), variables, self.folder / f"{name}.log"))

    def _open_log(self) -> EventLog:
        """The log as a producer opens it, by way of the proxies."""
        dsn = conninfo.make_conninfo(self.environment["OFP_DATABASE_URL"], user=default_role(Job.INGRESS))
        plane = persist(
            lambda: Plane.open(self.profile, dsn, max_connections=2, create_stream=False),
            _PASSING,
            time.monotonic() + READY_SECONDS,
        )
        self.stack.callback(plane.pool.close)
        return plane.log

    # ------------------------------------------------------------------------------------------ one outage

    def outage(
        self, disturbed: Disturbed, outage: Outage, seconds: float, found: Found, named_within: float = NAMED_SECONDS
    ) -> None:
        """Let a service be away for so long, at least until health names it; wait until all is itself again; compare all."""
        found.outages += 1
        title = f"{self.log_kind} log, {disturbed.name} {outage}"
        refused_before = self.load.told.refused.copy()
        began = time.monotonic()
        disturbed.begin(outage)
        try:
            named = self._await_posture(
                lambda state, reasons: state != "GREEN" and _names(reasons, disturbed, self), began, named_within
            )
            time.sleep(max(0.0, began + seconds - time.monotonic()))
        finally:
            disturbed.end(outage)
        well = time.monotonic()
        if named is None:
            seen = sorted({f"{state}:{','.join(reasons)}" for at, state, reasons in self.load.told.postures if at > began})
            found.unnamed.append(f"{title}: health said {seen}")
        else:
            found.named_seconds.append(named - began)
        limit = SILENT_RECOVERY_SECONDS if outage is Outage.UNREACHABLE else RECOVERY_SECONDS
        if trouble := self._recovers(well + limit):
            found.hung.append(f"{title}: {trouble}")
            return
        found.recovery_seconds.append(time.monotonic() - well)
        found.refused += self.load.told.refused - refused_before
        self.load.pause()
        try:
            found.wrong += [f"{title}: {text}" for text in self.wrong(found.counts)]
        finally:
            self.load.resume()

    def _await_posture(self, holds: Callable[[str, tuple[str, ...]], bool], since: float, seconds: float) -> float | None:
        """The moment from which on health said so; None: it did not in time."""
        at = 0
        while time.monotonic() < since + seconds:
            postures = self.load.told.postures
            for moment, state, reasons in postures[at:]:
                if moment > since and holds(state, reasons):
                    return moment
            at = len(postures)
            time.sleep(0.05)
        return None

    def _recovers(self, deadline: float) -> str:
        """Wait until a record that is appended now is applied, served and archived, and health is GREEN; else what is not."""
        told = self.load.told
        try:
            persist(self._at_a_mark, (TimeoutError, *_PASSING), deadline, 0.1)
        except TimeoutError as error:
            return f"the projector does not reach a later record: {error}"
        served = len(told.served)
        while len(told.served) < served + 5:
            if time.monotonic() > deadline:
                return "nothing is answered"
            time.sleep(0.05)
        if self._await_posture(lambda state, _: state == "GREEN", time.monotonic(), deadline - time.monotonic()) is None:
            return f"health does not become GREEN: {told.postures[-1:]}"
        return "; ".join([*self.load.failures(), *(f"the {child.name} ended" for child in self.children if child.ended)])

    @property
    def children(self) -> tuple[Child, ...]:
        """The processes of the plane."""
        return self.projector, self.service, self.archiver

    def _at_a_mark(self) -> None:
        """Return when the projection is past where the log ends now, and a producer holds a later receipt."""
        told = self.load.told
        receipts = len(told.receipts)
        head = self.direct.log.ends()
        until = time.monotonic() + 5
        while time.monotonic() < until:
            row = self.direct.live()
            if row is not None and _is_past(row.basis, head) and len(told.receipts) > receipts:
                return
            time.sleep(0.1)
        raise TimeoutError(
            f"{len(told.receipts) - receipts} new receipts, projection at {'nothing' if row is None else row.basis}"
        )

    def lost(self) -> list[str]:
        """Kill a log that keeps its records in memory, and let one of the same name be made in its place, with other records.

        Health must name that before and behind it, what is applied and answered must not change, and nothing be archived. The
        load has ended. What is not so, in words.
        """
        disturbed = self.services.log_of(self.log_kind)
        head = self.direct.log.ends()
        deadline = time.monotonic() + RECOVERY_SECONDS
        while (row := self.direct.live()) is None or not _is_past(row.basis, head):
            if time.monotonic() > deadline:
                return ["the projection does not reach the head"]
            time.sleep(0.1)
        archive_up_to(self.direct.ranges, self.direct.archive, head)
        spans = {
            name: self.direct.archive.spans(name, self.direct.log.position_kind.offset_kind)
            for name in self.direct.archive.partition_ids()
        }
        found = []
        with self.load.client() as client:

            def named(reasons: tuple[str, ...]) -> bool:
                deadline = time.monotonic() + RECOVERY_SECONDS
                while time.monotonic() < deadline:
                    health = client.health()
                    if health.state.value == "RED" and any(reason.startswith(reasons) for reason in health.reasons):
                        return True
                    time.sleep(0.2)
                found.append(f"health says {health.state}: {health.reasons}, and not {reasons}")
                return False

            disturbed.begin(Outage.KILLED)
            named(("LOG_DOWN",))
            disturbed.end(Outage.KILLED)
            named(("NOT_OBSERVED:StreamNotFound", *_LOST))
            with Plane.open(self.direct.profile, self.services.dsn) as other:  # as whoever makes it again
                part = self.deliveries.part(0, len(self.deliveries) // 2)
                assert not other.log.append_columns(part.columns(), part.admitted_at).refusals
            named(_LOST)
            time.sleep(2 * PACE_SECONDS)
        after = self.direct.live()
        if after is None or after.basis != row.basis:
            found.append(f"the projection went on: {row.basis} and {after}")
        now = {
            name: self.direct.archive.spans(name, self.direct.log.position_kind.offset_kind)
            for name in self.direct.archive.partition_ids()
        }
        if now != spans:
            found.append("records of the new log were archived with those of the lost one")
        return found

    # ------------------------------------------------------------------------------------------ what must hold

    def wrong(self, counts: Counter[str]) -> list[str]:
        """What the log, the archive, what was served and what was decided have wrong now. The load pauses."""
        told = self.load.told
        receipts, served, decided = list(told.receipts), list(told.served), list(told.decided)
        in_doubt = told.in_doubt.copy()
        found, told.wrong = told.wrong, []
        answers = self._answers(served)
        self.oracle.read()  # behind all of them
        places = {(one.partition_id, one.offset): one.envelope["event_id"] for one in self.oracle.records}
        ids = self.deliveries.event_ids
        seen: Counter[str] = Counter()
        for position, place in receipts:
            key = (position.partition_id, self.oracle.position(position.partition_id, position.offset))
            seen[ids[place]] += 1
            if places.get(key) != ids[place]:
                found.append(f"{ids[place]} has a receipt for {key} and is not there")
        if len({position for position, _ in receipts}) != len(receipts):
            found.append("two receipts name one position")
        # what the log has beyond receipts: records whose append was refused with its outcome unknown, or sent again by itself
        surplus = Counter(places.values()) - seen
        resent = _RESENT.get(self.log_kind, 0)
        counts["copies of appends that were sent again"] = sum(max(0, count - in_doubt[name]) for name, count in surplus.items())
        for event_id, count in surplus.items():
            if count > in_doubt[event_id] * (1 + resent) + resent * seen[event_id]:
                found.append(f"{event_id} is in the log {count} times more than it has receipts")
        found += self.oracle.wrong(answers)
        counts["answers held against the fold"] += len(answers)
        found += self._wrong_archive(counts)
        found += self._missing(served)
        found += self._wrong_decisions(decided, counts)
        counts["receipts"], counts["answers"], counts["decisions"] = len(receipts), len(served), len(decided)
        counts["records in doubt"] = sum(in_doubt.values())
        return found

    def _answers(self, served: list[tuple[int, Basis, str]]) -> list[Answered]:
        """An answer about every key now, and a sample of what was served since the last look."""
        row = self.direct.live()
        assert row is not None
        reader = self.direct.reader(row)
        here = []
        for one in self.questions:
            answer = reader.answer(one.body(PINS))
            here.append((one, Basis.model_validate_json(answer.basis), answer.hash))
        part = served[self.checked_served :]
        self.checked_served = len(served)
        sample = self.chance.sample(part, min(_SAMPLE, len(part)))
        return here + [(self.questions[number], basis, name) for number, basis, name in sample]

    def _wrong_archive(self, counts: Counter[str]) -> list[str]:
        plane = self.direct
        ends = plane.log.ends()
        archive_up_to(plane.ranges, plane.archive, ends)
        found, records = [], 0
        for span in ReplayBasis.up_to(ends).partitions:
            verification = verify_partition(plane.archive, span.partition_id, span.offset_kind)
            records += verification.records
            found += [f"archive: {problem.message}" for problem in verification.problems]
            reach = verification.contiguous
            if reach is None or not _reaches(reach.end, span.end):
                found.append(f"the archive of {span.partition_id} reaches {reach}, the log {span.end}")
            found += [
                f"archive and log differ: {one}" for one in cross_check(plane.log, plane.archive, plane.pool, span).conflicts
            ]
        counts["records archived"] = records
        return found

    def _missing(self, served: list[tuple[int, Basis, str]]) -> list[str]:
        """Every answer is in the served log; the last ones may still be on their way."""
        names = [name for _, _, name in served]
        store = SnapshotStore(self.direct.pool, self.direct.archive.store)
        missing = names
        deadline = time.monotonic() + RECOVERY_SECONDS
        while True:
            with self.direct.pool.connection() as connection:
                rows = connection.execute(
                    "SELECT snapshot_hash FROM ofp.snapshot_index WHERE snapshot_hash = ANY(%s)", (missing,)
                )
                known = {row[0] for row in rows}
            missing = [name for name in set(missing) if name not in known]
            if not missing or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        found = [f"an answer is not in the served log: {name}" for name in missing]
        for name in self.chance.sample(names, min(_SAMPLE, len(names))):
            try:
                store.load(name)
            except ContractError as error:
                found.append(f"{name} cannot be read: {error.reason}: {error}")
        return found

    def _wrong_decisions(self, decided: list[str], counts: Counter[str]) -> list[str]:
        """Every recorded decision has a record, and rebuilt from log and archive each is what was served."""
        plane = self.direct
        with plane.pool.connection() as connection:
            rows = connection.execute(
                "SELECT decision_id FROM ofp.decision_record WHERE decision_id = ANY(%s)", (decided,)
            ).fetchall()
        found = (
            [f"{len(set(decided)) - len(rows)} decisions have a receipt and no record"] if len(rows) != len(set(decided)) else []
        )
        context = BuildContext(plane.pool, plane.log, plane.archive.store, self.folder / "scratch")
        run = RunToProve(self.profile.context_pins, RunPolicies.of(self.profile), plane.log.ends())
        outcomes = prove_run(context, run)
        counts["decisions that match"] = outcomes["MATCH"]
        if set(outcomes) != {"MATCH"} or outcomes["MATCH"] < len(set(decided)):
            found.append(f"parity: {dict(outcomes)} of {len(set(decided))} decisions")
        return found


def _names(reasons: tuple[str, ...], disturbed: Disturbed, world: OutageWorld) -> bool:
    """Whether the reasons of a posture name the service that is away."""
    services = world.services
    if disturbed is services.postgres:
        return "STORE_DOWN" in reasons
    if disturbed is services.objects:
        return "OBJECT_STORE_DOWN" in reasons
    return "LOG_DOWN" in reasons


def _is_past(basis: Basis, head: Basis) -> bool:
    parts = basis.by_partition()
    return all(not part.offset or (name in parts and _reaches(parts[name], part)) for name, part in head.by_partition().items())


def _reaches(part: object, end: object) -> bool:
    from ofp_platform.vocabulary.position import PartitionBasis, place

    assert isinstance(part, PartitionBasis)
    assert isinstance(end, PartitionBasis)
    return place(part) >= place(end)


def _payments(records: int, seed: int) -> Deliveries:
    """Payments of a few accounts, with copies, retries, late events and events that must not be applied."""
    few = PopulationSize(customers=12, accounts=15, merchants=15)
    some = max(2, records // 60)
    wrong = Disturbances(duplicates=some, retries=some, future=2, wrong_type=2, missing_field=2, foreign_pins=2, conflicts=2)
    pins = ContextPins.model_validate(PINS)
    wanted = PaymentSimulation(pins=pins, seed=seed, payments=records, days=2, size=few, disturbances=wrong)
    return simulate_payments(wanted).deliveries
