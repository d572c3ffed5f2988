"""Proves by sample that rows hold nothing that they could not know: features computed again, one row at a time.

The columns come from loops that slide over all rows of a key and correct for what was not known yet. Here each chosen row gets
its own set of events, filtered first and evaluated by the kernel's plain path, and must find the same values. Chosen are rows at
random, and rows beside the latest of the late events: a leak would show there first.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ofp_platform.kernel.finalise import group_values
from ofp_platform.kernel.query import LayoutArrays, query_of
from ofp_platform.kernel.windows import evaluate
from ofp_platform.offline.datasets.dataset_rows import AS_OF, CHAIN, KEY_HIGH, KEY_LOW, KNOWN_UNTIL, ORDINAL, ROW_WIDTH
from ofp_platform.offline.datasets.feature_rows import FeatureJob, feature_name
from ofp_platform.offline.replay.key_shards import EventShard, read_shard
from ofp_platform.offline.replay.knowledge import known_from
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.vocabulary.offline.build_intent import AsOfBasis
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused

Int64s = npt.NDArray[np.int64]
RANDOM_ROWS = 64
LATE_EVENTS = 64


def check_features(job: FeatureJob, registry: CompiledRegistry, seed: str) -> int:
    """Check rows of every computed shard. `seed` (hex digits) chooses them; how many were checked.

    Raises:
        BuildRefused: LEAKAGE_DETECTED, naming the row and the feature.
    """
    return sum(_check_shard(job, registry, key_type, shard, int(seed[:16], 16)) for key_type, shard in job.shards)


def _check_shard(job: FeatureJob, registry: CompiledRegistry, key_type: str, shard: int, seed: int) -> int:
    rows = read_shard(job.rows.spool(key_type), shard, ROW_WIDTH)
    if not len(rows):
        return 0
    events = job.folded.events(registry, key_type, shard)
    chosen = _chosen(rows, events, job.rows.as_of_basis, np.random.default_rng(seed + shard))
    with pa.memory_map(str(job.file(key_type, shard))) as source:
        computed = pa.ipc.open_file(source).read_all()
    ordinals = computed["ordinal"].to_numpy()
    groups = [registry.groups[name] for name in dict(job.groups)[key_type]]
    query = query_of(LayoutArrays.of(registry.layouts[key_type]), groups)
    chains: dict[int, Int64s] = {}
    for row in rows[chosen].tolist():
        place = int(np.searchsorted(ordinals, row[ORDINAL]))
        found = evaluate(query, _known(row, events, job, chains), row[AS_OF])
        number = 0
        for group in groups:
            for name, value in group_values(group, query, found, row[AS_OF]).items():
                stored = _stored(computed, number, place)
                expected = value[0] if isinstance(value, tuple) else value
                if stored != expected:
                    column = feature_name((group.name, group.version), name)
                    message = f"row {row[ORDINAL]}: {column} is not what the events give that the row could know"
                    raise BuildRefused(BuildReason.LEAKAGE_DETECTED, message, "as_of_basis")
                number += 1
    return len(chosen)


def _known(row: list[int], events: EventShard, job: FeatureJob, chains: dict[int, Int64s]) -> Int64s:
    """The events of the row's key that the row knows, by the meaning of its basis and nothing else."""
    mine = np.flatnonzero((events.key_high == row[KEY_HIGH]) & (events.key_low == row[KEY_LOW]))
    if not len(mine):
        return np.ascontiguousarray(events.matrix[:, :0])
    span = slice(int(events.starts[mine[0]]), int(events.ends[mine[0]]))
    matrix = events.matrix[:, span]
    if job.rows.as_of_basis is AsOfBasis.INGEST_TIME:
        matrix = matrix[:, events.admitted_at[span] <= row[KNOWN_UNTIL]]
    elif job.rows.as_of_basis is AsOfBasis.DECISION:
        known = chains.get(row[CHAIN])
        if known is None:
            known = chains[row[CHAIN]] = known_from(job.rows.chains[row[CHAIN]], events.matrix.shape[1], events.copies)
        matrix = matrix[:, known[span] <= row[KNOWN_UNTIL]]
    return np.ascontiguousarray(matrix)


def _chosen(rows: Int64s, events: EventShard, as_of_basis: AsOfBasis, random: np.random.Generator) -> list[int]:
    """Places of rows, ascending."""
    places = set(random.choice(len(rows), min(RANDOM_ROWS, len(rows)), replace=False).tolist())
    if as_of_basis is AsOfBasis.EVENT_TIME or not events.matrix.shape[1]:
        return sorted(places)
    lateness = events.admitted_at - events.matrix[0]
    for event in np.argsort(lateness, kind="stable")[-LATE_EVENTS:].tolist():
        key = int(np.searchsorted(events.ends, event, side="right"))
        mine = (rows[:, KEY_HIGH] == events.key_high[key]) & (rows[:, KEY_LOW] == events.key_low[key])
        mine &= rows[:, AS_OF] >= events.matrix[0, event]
        if as_of_basis is AsOfBasis.INGEST_TIME:
            mine &= rows[:, KNOWN_UNTIL] < events.admitted_at[event]
        candidates = np.flatnonzero(mine)
        if len(candidates):
            places.add(int(candidates[np.argmin(rows[candidates, AS_OF])]))
    return sorted(places)


def _stored(computed: pa.Table, number: int, place: int) -> int | None:
    if not computed[f"valid{number}"][place].as_py():
        return None
    low = int(computed[f"low{number}"][place].as_py())
    if f"high{number}" not in computed.column_names:
        return low
    return (int(computed[f"high{number}"][place].as_py()) << 64) | (low & (2**64 - 1))
