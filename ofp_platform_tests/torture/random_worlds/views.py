"""A world held against the oracle: projected and served by the online plane, folded and rebuilt by the offline plane."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ofp_platform.identity.context_replay import ContextReplay
from ofp_platform.log.archived_log import ArchivedLog
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.offline.parity.parity import resolution_of
from ofp_platform.offline.parity.rebuilding import QuestionAt, Rebuilder, ReplayedRun
from ofp_platform.offline.replay.knowledge import Knowledge
from ofp_platform.offline.replay.known_events import FoldedReplay, fold_replay
from ofp_platform.offline.sources.stream_records import StreamRecords
from ofp_platform.online.projecting import read_ahead
from ofp_platform.online.projecting.projector import Projector
from ofp_platform.online.projecting.projector_settings import ProjectorSettings
from ofp_platform.online.serving.reader import Reader
from ofp_platform.online.state.known_identities import IdentityPolicy
from ofp_platform.online.state.projection import ProjectionConflict, make_live, open_projection, read_projection
from ofp_platform.registry.question import check_request
from ofp_platform.storage.anomaly_records import record_anomalies
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.position import Basis, basis_text, make_basis
from ofp_platform.vocabulary.profile import Limits
from ofp_platform.vocabulary.serving import GetFeaturesRequest, GraphVersion
from ofp_platform_tests.oracle import fold
from ofp_platform_tests.oracle.small_plane import RUN_CONFIG, ScatteredLog
from ofp_platform_tests.oracle.strategies import SKEW, START
from ofp_platform_tests.torture.random_worlds.histories import (
    ShortHistory,
    backdated_labels,
    late_replay,
    late_rows,
    read_to_end,
    shorten,
)
from ofp_platform_tests.torture.random_worlds.links import WorldGraph
from ofp_platform_tests.torture.random_worlds.log import ShardLog
from ofp_platform_tests.torture.random_worlds.packs import selections
from ofp_platform_tests.torture.random_worlds.shards import WorldShards
from ofp_platform_tests.torture.random_worlds.silences import silences
from ofp_platform_tests.torture.random_worlds.store import WorldStore, plain_json
from ofp_platform_tests.torture.random_worlds.world import OTHER_RUN, World

Log = PostgresLog | ShardLog
_BEHIND = Reason.AS_OF_BEFORE_HORIZON.value
_LIMITS = Limits()
_SHARE_WITH_LABELS = 0.12
_SHARE_WITH_SILENCES = 0.2
_SHARE_FORGETFUL = 0.1


@dataclass(frozen=True)
class Asked:
    """One question to one view at one basis. `wanted` and `served`: the snapshot hash, or the reason of the refusal;
    `graph_version`: that it is resolved by, if a group resolves identities.
    """

    request: GetFeaturesRequest
    basis: Basis
    graph_version: dict[str, Any] | None
    wanted: str
    served: str
    differs: str


@dataclass
class Findings:
    """What came of a world: what differed (empty: nothing), and what occurred in it."""

    differing: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def hold(self, what: str, found: object, wanted: object) -> None:
        """Note it where two things that must be equal are not."""
        self.counts["comparisons"] += 1
        if found != wanted:
            self.differing.append(f"{what}: {found}, the oracle says {wanted}")


def try_world(store: WorldStore, world: World, folder: Path) -> Findings:
    """Run one world through both planes and the oracle. `folder` is empty; what is folded into it is left to the caller."""
    findings = Findings()
    rng = random.Random(f"drive {world.seed}")
    log = _log_of(store, world)
    history = None
    if isinstance(log, ShardLog):
        history = shorten(store, world, log, folder / "archive", findings.counts)
    if history is not None:
        outcome = read_to_end(history)
        findings.hold("a fold over what is left", outcome, "whole" if history.is_whole else "refused")
        late = late_replay(world, history, findings.counts)
        findings.hold("a replay that starts late", late.judged, late.expected)
        if late.judged == late.expected == "whole":
            findings.hold("rows of a replay that starts late", *late_rows(world, history, late, folder))
    if rng.random() < _SHARE_WITH_LABELS:
        findings.hold("labels", *backdated_labels(store, world, findings.counts))
    if rng.random() < _SHARE_WITH_SILENCES:
        findings.hold("a reader of Kinesis", *silences(store, world, folder / "silences", findings.counts))
    if history is not None and not history.is_whole:
        history = None  # what is lost was refused; the planes go on with the whole log
    tries = [ViewTrial(store, world, number, log, history, findings) for number in range(len(world.views))]
    for number, trial in enumerate(tries):
        trial.project(rng)
        trial.rebuild(rng, folder / f"view-{number}")
    return findings


class ViewTrial:
    """One projection of a world beside the oracle."""

    def __init__(
        self, store: WorldStore, world: World, number: int, log: Log, history: ShortHistory | None, findings: Findings
    ) -> None:
        view = world.views[number]
        self.store, self.world, self.view, self.log, self.findings = store, world, view, log, findings
        self.history = history
        self.source: Log | ArchivedLog = log if history is None else history.log
        """What is projected: the log, or what is left of it behind its archive."""
        self.pins = ContextPins(**view.pins)
        self.registry = view.pack.registry
        status = "building" if view.revised else "live"
        with store.pool.connection() as connection:
            self.projection_id = open_projection(
                connection, world.name, self.pins, self.registry, RUN_CONFIG, status=status
            ).projection_id
        self.shards = WorldShards(store.pool, self.projection_id, f"{world.seed} {number}", findings.counts)
        evaluator = store.evaluator(self.registry, self.pins, world.lateness)
        self.graph = WorldGraph(store, world, number, view.pack.content, findings.counts)
        self.reader = Reader(store.pool, self.projection_id, evaluator, _LIMITS, graph=self.graph.reader_graph)
        self.basis = make_basis(world.name, {})
        self.asked: list[Asked] = []
        self.folded: dict[str, fold.Known] = {}

    # ---- online --------------------------------------------------------------------------------------------------

    def project(self, rng: random.Random) -> None:
        """Apply the log in commits of random sizes, with restarts and deliveries that come twice; ask in between."""
        left = self.source
        if self.history is not None and rng.random() < 0.5:
            self.source = self.log  # it is trimmed behind the first commit
            self.findings.counts["trimmed midway"] += 1
        projector = self._projector()
        count = len(self.world.records)
        is_forgetful = rng.random() < _SHARE_FORGETFUL  # small commits, each by a process that knows what the store kept
        while True:
            if self.source is not left and projector.basis.partitions:
                self.source = left
                projector = self._projector()
            if is_forgetful or rng.random() < 0.1 or self.shards.changed():
                projector = self._projector()
            most = rng.choice((*[count] * 5, max(1, count // 2), max(1, count // 4)))
            if is_forgetful:
                most = rng.choice((1, 2))
            batches, _ = read_ahead.read_batches(self.source, read_ahead.ReadRequest(projector.basis, most))
            if not batches:
                break
            self.basis = self.shards.apply(projector, batches, self._projector).basis_after
            self.findings.counts["commits"] += 1
            if rng.random() < 0.1 and any(len(batch) for batch in batches):
                self._deliver_again(projector, [batch for batch in batches if len(batch)])
            if rng.random() < 0.25:
                self._ask(rng)
        if self.view.revised:
            with self.store.pool.connection() as connection:
                retired = make_live(connection, self.projection_id, read_projection(connection, self.projection_id).version)
            self.findings.hold("the projection that was live is retired", retired is not None, True)
        self._ask(rng)
        self._check_counters()

    def _projector(self) -> Projector:
        settings = ProjectorSettings(
            SKEW,
            self.world.lateness,
            chunk_events=self.world.chunk_events,
            span_chunks=self.world.span_chunks,
            tail_bytes=self.world.tail_bytes,
            least_step=self.world.pruning_step,
            identities=IdentityPolicy(self.world.known_events, fan_in=2),
        )
        return self.shards.projector(self.store.pool, self.source, self.registry, self.projection_id, settings)

    def _deliver_again(self, projector: Projector, batches: Sequence[Any]) -> None:
        """What was committed comes once more, as to a process that died before it could tell: it is refused as a whole."""
        self.findings.counts["deliveries that came twice"] += 1
        refused = False
        try:
            projector.apply(batches)
        except ProjectionConflict:
            refused = True
        self.findings.hold("a delivery that came twice is refused", refused, True)

    def _ask(self, rng: random.Random) -> None:
        basis = self.basis
        known = self._known(basis)
        if self.graph.types:
            self.graph.advance(rng)
        keys, groups, context = self._question(rng)
        version = self.graph.version(groups)
        as_of = self._as_of(rng, known, keys, groups)
        request = GetFeaturesRequest.model_validate(
            {
                "context_pins": dict(self.view.pins),
                "feature_keys": [{"key_type": key_type, "key_id": key_id} for key_type, key_id in keys],
                "feature_groups": [{"group_name": name, "group_version": version} for name, version in groups],
                "as_of_time_utc": fold.time_text(as_of),
                "request_context": context,
            }
        )
        expected: fold.Answer | None = None
        try:
            expected = fold.snapshot(
                known,
                self.view.pack.content,
                keys,
                groups,
                as_of,
                allowed_lateness=self.world.lateness,
                request_context=context,
                entities=self.graph.entities(keys, as_of),
            )
            wanted = self._hash(expected, basis, keys, groups, as_of, context, version)
        except fold.BehindHorizon:
            wanted = _BEHIND
        differs = ""
        try:
            answer = self.reader.answer(request)
            served = answer.hash
            if served != wanted and expected is not None:
                differs = _difference(json.loads(answer.body), expected)
        except ContractError as refusal:
            served = refusal.reason.value
        self.findings.counts["questions"] += 1
        self.findings.counts["refusals"] += len(wanted) != 64
        self.findings.hold(f"served at {fold.time_text(as_of)} for {keys} {groups}{differs}", served, wanted)
        self.asked.append(Asked(request, basis, version, wanted, served, differs))

    def _question(self, rng: random.Random) -> tuple[list[tuple[str, str]], list[tuple[str, str]], dict[str, int | str]]:
        """Keys, groups that fit them, and the request context that they need."""
        content = self.view.pack.content
        groups = content["groups"]
        chosen = [rng.choice(groups)] if rng.random() < 0.6 else groups
        keys: list[tuple[str, str]] = []
        for key_type in sorted({group["key_type"] for group in chosen}):
            places = rng.sample(range(4), rng.choice((1, 1, 2)))
            keys += [(key_type, f"{key_type[0]}-{place}") for place in places]
        context: dict[str, int | str] = {}
        for group in chosen:
            for name, kind in group["request"].items():
                context[name] = rng.randrange(10**6) if kind == "integer" else f"{rng.randrange(10**6)}.25"
        return keys, [(group["name"], group["version"]) for group in chosen], context

    def _as_of(
        self, rng: random.Random, known: fold.Known, keys: Sequence[tuple[str, str]], groups: Sequence[tuple[str, str]]
    ) -> int:
        """Where a window of the groups begins or ends at an event of the keys, or a microsecond beside it."""
        names = {key_id for _, key_id in keys}
        events = list(known.events.values())
        touching = [
            event.ts for event in events if not names.isdisjoint(text for text in event.payload.values() if isinstance(text, str))
        ]
        amended = [one.ts for one in known.amendments.values() if not names.isdisjoint(map(str, one.payload.values()))]
        touching += amended
        linked = self.graph.moments(groups)
        moments = touching or [event.ts for event in events] or [START]
        chosen = [group for group in self.view.pack.content["groups"] if (group["name"], group["version"]) in groups]
        spans = [
            span for group in chosen for part in selections(group) for span in (part["delay"], part["delay"] + part["window"])
        ]
        reach = max(part["delay"] + part["window"] for group in chosen for part in selections(group))
        retained = self.registry.reach + self.world.lateness
        served_from = 0 if known.watermark is None else known.watermark - retained + reach
        found = 0
        for _ in range(rng.choice((1, 8, 8, 8, 8))):  # once: it may lie behind the horizon
            found = rng.choice(moments) + rng.choice((0, *spans)) + rng.choice((-1, 0, 0, 0, 0, 1))
            if amended and rng.random() < 0.5:  # where it begins to count
                found = rng.choice((rng.choice(amended), max(amended))) + rng.choice((-1, 0, 0))
            elif linked and rng.random() < 0.7:
                found = rng.choice(linked) + rng.choice((-1, 0, 0, 0, rng.choice(spans)))
            if found >= served_from:
                break
        return found

    # ---- the oracle ------------------------------------------------------------------------------------------------

    def _known(self, basis: Basis) -> fold.Known:
        """The oracle's fold up to a basis; what a basis holds never changes."""
        text = basis_text(basis)
        if text not in self.folded:
            self.folded[text] = self._fold(basis)
        return self.folded[text]

    def _fold(self, basis: Basis) -> fold.Known:
        if isinstance(self.log, ShardLog):
            ends = {part.partition_id: self.log.ordinal(part) for part in basis.partitions}
        else:
            ends = {part.partition_id: int(part.offset) for part in basis.partitions}
        return fold.known_events(self.world.records, ends, self.view.pins, self.view.pack.content, SKEW)

    def _hash(
        self,
        expected: fold.Answer,
        basis: Basis,
        keys: Sequence[tuple[str, str]],
        groups: Sequence[tuple[str, str]],
        as_of: int,
        context: Mapping[str, int | str],
        version: Mapping[str, Any] | None,
    ) -> str:
        """The snapshot hash as the law words it, from the oracle's values."""
        body: dict[str, Any] = {
            "contract_version": "ofp_public_contracts_v0",
            "context_pins": dict(self.view.pins),
            "as_of_time_utc": fold.time_text(as_of),
            "feature_keys": [{"key_type": key_type, "key_id": key_id} for key_type, key_id in sorted(keys)],
            "feature_groups": [{"group_name": name, "group_version": version} for name, version in sorted(groups)],
            "registry_digest": self.registry.digest,
            "run_config_digest": RUN_CONFIG,
            "values": expected.by_key,
            "freshness": expected.freshness,
            "warnings": expected.warnings,
            "input_basis": basis.model_dump(mode="json"),
            **({"request_context": dict(context)} if context else {}),
            **({} if version is None else {"graph_version": dict(version)}),
        }
        return hashlib.sha256(plain_json(body)).hexdigest()

    def _check_counters(self) -> None:
        """What the projection says of its records, and the watermark; what occurred goes into the findings."""
        with self.store.pool.connection() as connection:
            row = read_projection(connection, self.projection_id)
            totals = connection.execute(
                "SELECT coalesce(sum(records), 0)::int, coalesce(sum(failed), 0)::int, coalesce(sum(ignored), 0)::int,"
                " coalesce(sum(partial), 0)::int"
                " FROM ofp.projection_partition WHERE projection_id = %s",
                (self.projection_id,),
            ).fetchone()
        reached = row.basis.by_partition()
        unread = [end for name, end in self.log.ends().by_partition().items() if reached.get(name) != end]
        # a partition that nothing was ever in is in no basis
        self.findings.hold("what the basis lacks at the end", [end for end in unread if end.offset or end.closed], [])
        known = self.known = self._known(row.basis)
        foreign = [record for record in self.world.records if _pins(record) != self.view.pins]
        active = [dict(view.pins) for view in self.world.views]
        inactive = sum(_pins(record) not in active for record in foreign)
        counted = (len(self.world.records), len(known.failures) + inactive, known.unknown + len(foreign) - inactive)
        self.findings.hold("records, failed, ignored, partial", totals, (*counted, len(known.group_failures)))
        self.findings.hold("the watermark", row.watermark, known.watermark)
        if self.view is self.world.views[0]:
            self.findings.counts["duplicates"] += known.duplicates
            self.findings.counts["conflicts"] += known.anomalies
            self.findings.counts["late"] += _late(known, self.registry.reach + self.world.lateness)

    # ---- offline ---------------------------------------------------------------------------------------------------

    def rebuild(self, rng: random.Random, folder: Path) -> None:
        """Fold the log into files, count as the oracle does, and rebuild the bytes of everything that was served."""
        spans = ReplayBasis.up_to(self.log.ends())
        folded = fold_replay(
            self._read_through(rng), self.registry, self.pins, SKEW, folder, shards=rng.choice((1, 1, 1, 1, 2, 3))
        )
        self._check_fold(folded)
        run = ReplayedRun(Knowledge(folded, spans), self.registry.pack, self.pins, RUN_CONFIG, self.world.lateness)
        answered = [one for one in self.asked if one.wanted != _BEHIND]
        links = self.graph.replay()
        questions = [self._question_at(one, links) for one in answered]
        rebuilt = Rebuilder(run).hashed_bytes(questions)
        for one, made in zip(answered, rebuilt, strict=True):
            found = made.reason.value if isinstance(made, ContractError) else hashlib.sha256(made).hexdigest()
            self.findings.hold(f"rebuilt at {one.request.as_of_time_utc}", found, one.wanted)

    def _question_at(self, asked: Asked, links: ContextReplay | None) -> QuestionAt:
        """The question at its basis, resolved by the version of the graph that the answer must have had."""
        question = check_request(asked.request, self.registry, self.pins, _LIMITS)
        version = None if asked.graph_version is None else GraphVersion.model_validate(asked.graph_version)
        return QuestionAt.of(question, asked.basis, resolution_of(question, version, links))

    def _read_through(self, rng: random.Random) -> Iterator[Any]:
        """All batches, the partitions in any order: a fold does not need parents first. Out of archive and log where both are."""
        if self.history is not None:
            spans = list(ReplayBasis.up_to(self.log.ends()).partitions)
            rng.shuffle(spans)
            reader = StreamRecords(self.history.short, self.history.archive).reader
            for span in spans:
                yield from reader.batches(span, rng.choice((3, 100)))
            return
        names = [info.partition_id for info in self.log.partitions()]
        rng.shuffle(names)
        for name in names:
            basis = None
            while len(batch := self.log.read(name, basis, rng.choice((3, 100)))):
                yield batch
                basis = batch.next

    def _check_fold(self, folded: FoldedReplay) -> None:
        known = self.known
        foreign = sum(record.envelope["run_id"] != self.view.pins["run_id"] for record in self.world.records)
        wrong = sum(_pins(record) != self.view.pins for record in self.world.records) - foreign
        counted = (folded.applied, folded.duplicates, folded.ignored, folded.other_run, folded.failed, folded.watermark)
        failures = len(known.failures) + wrong
        self.findings.hold(
            "folded", counted, (known.applied, known.duplicates, known.unknown, foreign, failures, known.watermark)
        )
        self.findings.hold("failures of some groups", sum(folded.group_failures.values()), len(known.group_failures))
        contents = Counter((event_class, event_id) for event_class, event_id, _ in (*known.events, *known.amendments))
        names = sorted(event_id for (_, event_id), count in contents.items() if count > 1)
        self.findings.hold("conflicts by id", sorted(one.event_id for one in folded.anomalies), names)
        with self.store.pool.connection() as connection:
            added = record_anomalies(connection, self.world.name, self.pins, self.registry.digest, folded.anomalies)
            rows = connection.execute(
                "SELECT event_id, count(*) FROM ofp.anomaly WHERE projection_id = %s GROUP BY event_id", (self.projection_id,)
            ).fetchall()
            counted = connection.execute(
                "SELECT coalesce(sum(anomalies), 0)::int FROM ofp.projection_partition WHERE projection_id = %s",
                (self.projection_id,),
            ).fetchone()
        self.findings.counts["forgotten"] += added
        self.findings.hold("ids of anomalies in both planes", sorted(event_id for event_id, _ in rows), sorted(set(names)))
        self.findings.hold("counter of anomalies", counted, (sum(count for _, count in rows),))
        # one more than that: a copy of a content that was forgotten, met as another content than what came after
        self.findings.hold("rows of anomalies", sum(count for _, count in rows) >= known.anomalies, True)


def _log_of(store: WorldStore, world: World) -> Log:
    if not world.dense:
        return ShardLog(world.name, world.shards, world.records, world.tokens)
    log = ScatteredLog.create(store.pool, world.name, len(world.shards), "event_id")
    assert isinstance(log, ScatteredLog)
    log.places.extend(record.partition_id for record in world.records)
    admissions = iter([record.admitted_at for record in world.records])
    receipt = log.append([record.envelope for record in world.records], lambda envelope: next(admissions))
    assert not receipt.refusals, receipt.refusals[0]
    return log


def _pins(record: fold.Record) -> dict[str, Any]:
    return {name: record.envelope[name] for name in OTHER_RUN if name in record.envelope}


def _late(known: fold.Known, retained: int) -> int:
    """How many events came from behind the horizon as it stood when they came, the log taken in order of admission."""
    newest: int | None = None
    late = 0
    for event in known.events.values():
        late += newest is not None and event.ts <= newest - retained
        newest = event.ts if newest is None else max(newest, event.ts)
    return late


def _difference(body: Mapping[str, Any], expected: fold.Answer) -> str:
    """Where an answer is not the oracle's, in words."""
    for own, other in zip(body["snapshot"]["by_key"], expected.by_key, strict=True):
        for group, wanted in zip(own["by_group"], other["by_group"], strict=True):
            for name, value in group["features"].items():
                if value != wanted["features"][name]:
                    return f": {own['key_id']} {group['group_name']}.{name} is {value!r}, not {wanted['features'][name]!r}"
    return f": freshness {body['provenance']['freshness']}, not {expected.freshness}"
