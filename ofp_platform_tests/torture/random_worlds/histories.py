"""What a world's history loses, and when it is told: trimmed logs behind archives, shards that are gone, replays that start late,
labels that are dated back."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ofp_platform.log.archive import archive_up_to
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.archived_log import ArchivedLog
from ofp_platform.log.port import PartitionInfo, PartitionNotFound, PartitionVanished, PositionTrimmed, RecordBatch
from ofp_platform.log.ranges import OffsetRanges
from ofp_platform.offline.labels.label_store import LabelStore
from ofp_platform.offline.parity.rebuilding import QuestionAt, Rebuilder, ReplayedRun
from ofp_platform.offline.replay.knowledge import Knowledge
from ofp_platform.offline.replay.known_events import fold_replay
from ofp_platform.offline.requests import replay_history
from ofp_platform.offline.sources.stream_records import StreamRecords
from ofp_platform.online.projecting import read_ahead
from ofp_platform.registry.question import check_request
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.build_plan import LabelBasis
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.position import Basis, PartitionBasis, make_basis
from ofp_platform.vocabulary.profile import Limits
from ofp_platform.vocabulary.serving import GetFeaturesRequest
from ofp_platform_tests.oracle import fold
from ofp_platform_tests.oracle.small_plane import RUN_CONFIG
from ofp_platform_tests.oracle.strategies import PINS, SECOND, SKEW, START
from ofp_platform_tests.torture.random_worlds.log import ShardLog
from ofp_platform_tests.torture.random_worlds.store import WorldStore
from ofp_platform_tests.torture.random_worlds.world import World


class ShortLog(ShardLog):
    """What retention leaves of a log: of each shard the records from its floor on; shards that are gone are listed no more."""

    def __init__(self, world: World, floors: Mapping[str, int], gone: frozenset[str]) -> None:
        super().__init__(world.name, world.shards, world.records, world.tokens)
        self.floors, self.gone = floors, gone

    def partitions(self) -> list[PartitionInfo]:
        """See `EventLog`."""
        return [
            PartitionInfo(
                info.partition_id,
                tuple(name for name in info.parents if name not in self.gone),
                info.closed,
                tuple(name for name in info.parents if name in self.gone),
            )
            for info in super().partitions()
            if info.partition_id not in self.gone
        ]

    def read(self, partition_id: str, basis: PartitionBasis | None, max_records: int) -> RecordBatch:
        """See `EventLog`."""
        if partition_id in self.gone:
            raise PartitionNotFound(f"{self.stream_name} has no {partition_id}")
        if (0 if basis is None else self.ordinal(basis)) < self.floors[partition_id]:
            raise PositionTrimmed(f"{partition_id} begins at {self.floors[partition_id]}")
        return super().read(partition_id, basis, max_records)

    def retention_floor(self) -> Basis:
        """See `EventLog`."""
        return make_basis(self.stream_name, {name: self.at(name, floor) for name, floor in self.floors.items()})


@dataclass(frozen=True)
class ShortHistory:
    """A world's log as retention left it, with the archive in front of it.

    `archived`: how many records of each shard the archive has; `is_whole`: log and archive have all of them together.
    """

    whole: ShardLog
    short: ShortLog
    log: ArchivedLog
    archive: Archive
    archived: Mapping[str, int]
    segment_records: int
    is_whole: bool


def shorten(store: WorldStore, world: World, whole: ShardLog, folder: Path, counts: Counter[str]) -> ShortHistory | None:
    """Archive a part of the log and trim it, in some of the worlds whose log are shards; None in the others."""
    rng = random.Random(f"short {world.seed}")
    if rng.random() > 0.4:
        return None
    sizes = {shard.name: sum(one.partition_id == shard.name for one in world.records) for shard in world.shards}
    ended = {shard.name for shard in world.shards if shard.ended}
    all_archived = rng.random() < 0.5
    archived = {name: size if all_archived else rng.randint(0, size) for name, size in sizes.items()}
    safe = rng.random() < 0.4
    floors = {name: rng.randint(0, archived[name] if safe else size) for name, size in sizes.items()}
    gone = set()
    for name in sorted(ended):
        # one that nobody knows (never archived, no child of it listed) is no gap that anybody could see
        if sizes[name] and archived[name] and rng.random() < 0.3 and (archived[name] == sizes[name] or not safe):
            gone.add(name)
            floors[name] = sizes[name]
    archive = Archive(ObjectStore(f"file://{folder}"), world.name)
    segment_records = rng.choice((1, 1, 2, 5))
    parts = {name: whole.at(name, count) for name, count in archived.items() if count}
    if parts:
        archive_up_to(OffsetRanges(store.pool, whole, segment_records), archive, make_basis(world.name, parts))
    is_whole = all(floors[name] <= archived[name] for name in sizes)
    short = ShortLog(world, floors, frozenset(gone))
    counts["trimmed"] += any(floors.values())
    counts["vanished"] += len(gone)
    counts["quiet"] += sum(floors[name] == size and name not in gone for name, size in sizes.items() if size)
    counts["gaps"] += not is_whole
    return ShortHistory(whole, short, ArchivedLog(short, lambda: archive), archive, archived, segment_records, is_whole)


def read_to_end(history: ShortHistory) -> str:
    """Read all of it as a projector does from the beginning; how that ends: "whole", or the name of the refusal."""
    basis = make_basis(history.log.stream_name, {})
    try:
        while batches := read_ahead.read_batches(history.log, read_ahead.ReadRequest(basis, 100))[0]:
            basis = make_basis(basis.stream_name, {**basis.by_partition(), **{one.partition_id: one.next for one in batches}})
    except (PositionTrimmed, PartitionVanished):
        return "refused"
    return "whole"


@dataclass(frozen=True)
class LateReplay:
    """A replay that starts late, and the oldest row (microseconds) that it was judged for.

    `judged`, `expected`: "whole" or the reason of the refusal, as the plane says it and as the times of what it leaves out do.
    """

    basis: ReplayBasis
    oldest_row: int
    judged: str
    expected: str


def late_replay(world: World, history: ShortHistory, counts: Counter[str]) -> LateReplay:
    """Judge a replay that leaves out some of what is archived."""
    rng = random.Random(f"late {world.seed}")
    pack = world.views[0].pack
    starts = {name: rng.choice((0, rng.randint(0, count))) for name, count in history.archived.items()}
    spans = [
        span.rest(history.whole.at(span.partition_id, starts[span.partition_id])) if starts[span.partition_id] else span
        for span in ReplayBasis.up_to(history.whole.ends()).partitions
    ]
    basis = ReplayBasis.up_to(history.whole.ends()).model_copy(update={"partitions": tuple(spans)})
    left_out = [one for one in world.records if one.offset < starts[one.partition_id]]
    newest = max((fold.micros(one.envelope["ts_utc"]) for one in left_out), default=None)
    reach = max(group.reach for group in pack.registry.groups.values())
    oldest_row = rng.choice([START, START + 100 * world.unit, *([] if newest is None else [newest + reach, newest + reach - 1])])
    records = StreamRecords(history.whole, history.archive)
    try:
        proved = replay_history.newest_before(basis, records, SKEW)
        replay_history.check_history(proved, oldest_row, pack.registry.groups.values())
        judged = "whole"
    except BuildRefused as refusal:
        judged = refusal.reason.value
    counts["late replays"] += bool(left_out)
    # what is admitted counts, of whatever run; a record beyond the skew is bounded by its admission
    bounded = [min(fold.micros(one.envelope["ts_utc"]), one.admitted_at + SKEW) for one in left_out]
    is_short = max(bounded, default=oldest_row - reach) > oldest_row - reach
    if history.segment_records > 1 and not is_short:
        return LateReplay(basis, oldest_row, judged, judged)  # a segment proves less than its records: it may be refused
    return LateReplay(basis, oldest_row, judged, BuildReason.HISTORY_TOO_SHORT.value if is_short else "whole")


def late_rows(world: World, history: ShortHistory, late: LateReplay, folder: Path) -> tuple[object, object]:
    """The values of rows at and behind the oldest one: as the late replay makes them, and as one of the whole log does."""
    times = [late.oldest_row + offset * world.unit for offset in (0, 1, 7, 50)]
    whole = ReplayBasis.up_to(history.whole.ends())
    return (
        _row_values(world, history, late.basis, times, folder / "late"),
        _row_values(world, history, whole, times, folder / "full"),
    )


def _row_values(world: World, history: ShortHistory, basis: ReplayBasis, times: Sequence[int], folder: Path) -> list[object]:
    view = world.views[0]
    pins, groups = ContextPins(**view.pins), view.pack.content["groups"]
    context = {name: 1 if kind == "integer" else "1.25" for group in groups for name, kind in group["request"].items()}
    # of the whole log, and of what is left of it where the archive has the rest: the same records
    records = StreamRecords(history.short if history.is_whole else history.whole, history.archive)
    batches = (batch for span in basis.partitions for batch in records.reader.batches(span, 7))
    folded = fold_replay(batches, view.pack.registry, pins, SKEW, folder)
    knowledge = Knowledge(folded, basis)
    rebuilder = Rebuilder(ReplayedRun(knowledge, view.pack.registry.pack, pins, RUN_CONFIG, world.lateness))
    end = history.whole.ends()
    questions = []
    for as_of in times:
        request = GetFeaturesRequest.model_validate(
            {
                "context_pins": dict(view.pins),
                "feature_keys": [
                    {"key_type": kind, "key_id": f"{kind[0]}-0"} for kind in sorted({group["key_type"] for group in groups})
                ],
                "feature_groups": [{"group_name": group["name"], "group_version": group["version"]} for group in groups],
                "as_of_time_utc": fold.time_text(as_of),
                "request_context": context,
            }
        )
        questions.append(QuestionAt.of(check_request(request, view.pack.registry, pins, Limits()), end))
    evaluations = rebuilder.evaluate(questions, knowledge.bounds([end] * len(questions)))
    return [evaluation.rows for number in range(len(questions)) for evaluation in evaluations.keys(number)]


def backdated_labels(store: WorldStore, world: World, counts: Counter[str]) -> tuple[object, object]:
    """The labels as of a time, as the store resolves them and as the law does: nothing is observed before it was admitted."""
    rng = random.Random(f"labels {world.seed}")
    # in letters: the digits of one seed in ten would pass for a card number
    pins = ContextPins(**{**PINS, "run_id": "labels-" + str(world.seed).translate(str.maketrans("0123456789", "abcdefghij"))})
    labels = LabelStore(store.pool, pins)
    admissions: dict[LabelAssertion, int] = {}
    for number in range(rng.randint(2, 6)):
        admitted = START + rng.randrange(20) * SECOND
        stated = START + rng.randrange(-20, 20) * SECOND
        assertion = LabelAssertion(
            event_class="payment",
            event_id=f"e-{rng.randrange(2)}",
            label_type="fraud",
            value=rng.randrange(2),
            effective_time_utc=fold.time_text(START - rng.randrange(10) * SECOND),
            observed_time_utc=fold.time_text(stated),
            source=f"s-{number}",
        )
        admissions[assertion] = admitted
        counts["backdated"] += stated < admitted
    labels.append(admissions, admissions.__getitem__)
    as_of = START + rng.randrange(-5, 25) * SECOND
    basis = LabelBasis(
        label_type="fraud", as_of_utc=fold.time_text(as_of), maturity_seconds=0, next_sequence=labels.next_sequence()
    )
    best: dict[str, tuple[int, str, int]] = {}
    for assertion, admitted in admissions.items():
        observed = max(admitted, fold.micros(assertion.observed_time_utc))
        if observed <= as_of:
            entry = (observed, assertion.assertion_id, assertion.value)
            best[assertion.event_id] = max(entry, best.get(assertion.event_id, entry))
    resolved = labels.resolve(basis).table.select(["event_id", "assertion_id", "value"]).to_pylist()
    return [tuple(row.values()) for row in resolved], [(name, entry[1], entry[2]) for name, entry in sorted(best.items())]
