"""A build's parity gate: every recorded decision that its plan names, compared with its rebuild, and the records kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ofp_platform.offline import build_stages
from ofp_platform.offline.knowledge import Knowledge
from ofp_platform.offline.known_events import FoldedReplay
from ofp_platform.offline.parity import ParityRuns, RunKey, compare_all
from ofp_platform.offline.parity_anchor import ParityAnchor
from ofp_platform.offline.parity_store import store_records
from ofp_platform.offline.rebuilding import ReplayedRun
from ofp_platform.offline.store_outage import answering
from ofp_platform.offline.workshop import Workshop
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.pack import load_pack
from ofp_platform.storage.decision_records import read_decisions
from ofp_platform.storage.published_packs import pack_content
from ofp_platform.storage.snapshot_records import hashed_part, read_record
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.offline.build_plan import BuildPlan
from ofp_platform.vocabulary.offline.dataset_manifest import ParityReceipt
from ofp_platform.vocabulary.offline.decision_record import DecisionRecord
from ofp_platform.vocabulary.offline.parity_record import ParityOutcome, ParityRecord

_PAGE = 2_048


def compare_anchors(shop: Workshop, plan: BuildPlan, folder: Path, folded: FoldedReplay | None = None) -> ParityReceipt:
    """Compare the plan's decisions and append the records to ofp.parity_record.

    `folded` is the plan's replay under the plan's pack, where there is one; decisions that were served under another pack
    have the replay folded again, in `folder`.

    Raises:
        BuildRefused: the replay cannot be read, or a store does not answer.
    """
    runs: dict[RunKey, ReplayedRun] = {}
    for digest in _packs_of(shop, plan):
        registry = _registry(shop, digest)
        if registry is None:
            continue  # the decisions are uncheckable then, and say so
        own = folded if folded is not None and folded.registry_digest == digest else None
        if own is None:
            own = build_stages.replay(shop, plan, registry, folder / f"pack-{digest[:16]}")[0]
        runs[digest, plan.run_config_digest] = ReplayedRun(
            knowledge=Knowledge(own, plan.replay_basis),
            pack=registry.pack,
            pins=plan.context_pins,
            run_config_digest=plan.run_config_digest,
            allowed_lateness_us=plan.allowed_lateness_us,
        )
    parity = ParityRuns(plan.stream_name, plan.context_pins, runs)
    counts: Counter[ParityOutcome] = Counter()
    page: list[ParityRecord] = []

    def stored(snapshot_hash: str) -> dict[str, Any]:
        return hashed_part(read_record(shop.pool, shop.objects, snapshot_hash), snapshot_hash)

    anchors = (_anchor(record) for record in _decisions(shop, plan))
    workers = shop.workers if len(plan.parity_anchors) > 4 * _PAGE else 1
    for record in compare_all(anchors, parity, plan.request_id, stored, workers=workers):
        counts[record.outcome] += 1
        page.append(record)
        if len(page) == _PAGE:
            store_records(shop.pool, page)
            page = []
    store_records(shop.pool, page)
    return ParityReceipt(
        anchors=counts.total(),
        match=counts[ParityOutcome.MATCH],
        mismatch=counts[ParityOutcome.MISMATCH],
        uncheckable=counts[ParityOutcome.UNCHECKABLE],
    )


def _decisions(shop: Workshop, plan: BuildPlan) -> Iterator[DecisionRecord]:
    for start in range(0, len(plan.parity_anchors), _PAGE):
        with answering(), shop.pool.connection() as connection:
            found = read_decisions(connection, plan.parity_anchors[start : start + _PAGE])
        yield from found.values()


def _packs_of(shop: Workshop, plan: BuildPlan) -> list[str]:
    return sorted({record.feature_definition_set.digest for record in _decisions(shop, plan)})


def _registry(shop: Workshop, digest: str) -> CompiledRegistry | None:
    with answering(), shop.pool.connection() as connection:
        content = pack_content(connection, digest)
    return None if content is None else compile_pack(load_pack(content, digest))


def _anchor(record: DecisionRecord) -> ParityAnchor:
    return ParityAnchor(record.feature_snapshot_hash, canonical_bytes(record.wire()), record.decision_id)
