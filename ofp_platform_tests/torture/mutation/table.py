"""Which modules are mutated, and which tests should find the change: the tests of the module itself, then those of its callers.

The files of a module are run together, test by test, the quickest first. The projector, which writes what was taken in and moves
the basis in a transaction, is not here: a test of it takes seconds, and it is the kill loop and the random worlds that hold it.
"""

from __future__ import annotations

_TESTS = "ofp_platform_tests"
_WINDOWS = (f"{_TESTS}/kernel/test_windows.py",)
_ACCUMULATE = (f"{_TESTS}/kernel/test_accumulate.py", *_WINDOWS)
_COLUMNS = (f"{_TESTS}/kernel/test_columns.py",)
_ANSWERS = (f"{_TESTS}/kernel/test_answer_text.py", f"{_TESTS}/kernel/test_snapshot.py")

GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "kernel": {
        "ofp_platform.kernel.accumulate": _ACCUMULATE,
        "ofp_platform.kernel.amendments": (f"{_TESTS}/kernel/test_amendments.py",),
        "ofp_platform.kernel.answer_form": _ANSWERS,
        "ofp_platform.kernel.answer_text": _ANSWERS,
        "ofp_platform.kernel.column_values": (f"{_TESTS}/kernel/test_column_values.py", *_COLUMNS),
        "ofp_platform.kernel.columns": _COLUMNS,
        "ofp_platform.kernel.entity_events": (f"{_TESTS}/kernel/test_entity_events.py",),
        "ofp_platform.kernel.finalise": (
            f"{_TESTS}/kernel/test_finalise.py",
            f"{_TESTS}/kernel/test_windows_against_oracle.py",
        ),
        "ofp_platform.kernel.known_distinct": (f"{_TESTS}/kernel/test_known_rows.py", *_COLUMNS),
        "ofp_platform.kernel.known_rows": (f"{_TESTS}/kernel/test_known_rows.py",),
        "ofp_platform.kernel.known_windows": (
            f"{_TESTS}/kernel/test_known_windows.py",
            f"{_TESTS}/kernel/test_known_rows.py",
            *_COLUMNS,
        ),
        "ofp_platform.kernel.named_values": (f"{_TESTS}/kernel/test_named_values.py",),
        "ofp_platform.kernel.partial_aggregates": (f"{_TESTS}/kernel/test_partial_aggregates.py",),
        "ofp_platform.kernel.query": (f"{_TESTS}/kernel/test_query.py", *_WINDOWS, f"{_TESTS}/kernel/test_finalise.py"),
        "ofp_platform.kernel.sliding": (f"{_TESTS}/kernel/test_sliding.py", *_COLUMNS),
        "ofp_platform.kernel.snapshot": _ANSWERS,
        "ofp_platform.kernel.text_hashes": (f"{_TESTS}/kernel/test_text_hashes.py",),
        "ofp_platform.kernel.texts": (f"{_TESTS}/kernel/test_texts.py",),
        "ofp_platform.kernel.tokens": (f"{_TESTS}/kernel/test_tokens.py", *_WINDOWS),
        "ofp_platform.kernel.whole_windows": (
            f"{_TESTS}/kernel/test_whole_windows.py",
            f"{_TESTS}/kernel/test_windows_against_oracle.py",
        ),
        "ofp_platform.kernel.window_loops": (*_WINDOWS, *_ANSWERS),
        "ofp_platform.kernel.windows": (*_WINDOWS, *_ANSWERS),
    },
    "identity": {
        "ofp_platform.identity.entities": (f"{_TESTS}/identity/test_entities.py",),
        "ofp_platform.identity.context_events": (f"{_TESTS}/identity/test_graph_state.py",),
        "ofp_platform.identity.graph_knowledge": (f"{_TESTS}/offline/datasets/test_resolved_rows.py",),
        "ofp_platform.offline.datasets.resolved_rows": (f"{_TESTS}/offline/datasets/test_resolved_rows.py",),
        "ofp_platform.offline.datasets.row_graphs": (f"{_TESTS}/offline/datasets/test_resolved_rows.py",),
        "ofp_platform.vocabulary.observed_keys": (f"{_TESTS}/vocabulary/test_observed_keys.py",),
    },
    "canonical bytes": {
        "ofp_platform.vocabulary.canonical": (f"{_TESTS}/vocabulary/test_canonical.py",),
        "ofp_platform.vocabulary.canonical_form": (f"{_TESTS}/vocabulary/test_canonical_form.py",),
        "ofp_platform.vocabulary.decimals": (f"{_TESTS}/vocabulary/test_decimals.py",),
        "ofp_platform.vocabulary.identity": (f"{_TESTS}/vocabulary/test_identity.py",),
        "ofp_platform.vocabulary.snapshot_hash": (f"{_TESTS}/vocabulary/test_snapshot_hash.py",),
        "ofp_platform.vocabulary.times": (f"{_TESTS}/vocabulary/test_times.py",),
    },
    "basis": {
        "ofp_platform.log.ranges": (f"{_TESTS}/log/test_ranges.py",),
        "ofp_platform.offline.replay.decision_basis": (f"{_TESTS}/offline/replay/test_decision_basis.py",),
        "ofp_platform.offline.replay.knowledge": (f"{_TESTS}/offline/replay/test_knowledge.py",),
        "ofp_platform.offline.requests.replay_resolution": (f"{_TESTS}/offline/requests/test_replay_resolution.py",),
        "ofp_platform.online.serving.causal_read": (f"{_TESTS}/online/serving/test_causal_read.py",),
        "ofp_platform.online.projecting.record_intake": (f"{_TESTS}/online/projecting/test_record_intake.py",),
        "ofp_platform.vocabulary.offline.replay_basis": (f"{_TESTS}/vocabulary/test_replay_basis.py",),
        "ofp_platform.vocabulary.position": (f"{_TESTS}/vocabulary/test_position.py",),
    },
    "known events": {
        "ofp_platform.online.state.identity_index": (f"{_TESTS}/online/state/test_identity_index.py",),
        "ofp_platform.online.state.identity_pages": (f"{_TESTS}/online/state/test_identity_pages.py",),
    },
    "horizon": {
        "ofp_platform.online.projecting.chunk_merge": (f"{_TESTS}/online/projecting/test_chunk_merge.py",),
    },
}

LEFT_OUT = {
    "ofp_platform.kernel.native": "it says how loops are compiled, and they run uncompiled here",
}
"""Modules of the kernel that are not mutated, and why."""

TOO_LONG = (
    f"{_TESTS}/kernel/test_accumulate.py::test_a_million_extreme_values_do_not_wrap",
    f"{_TESTS}/kernel/test_sliding.py::test_a_dense_key_slides_as_it_stands",
    f"{_TESTS}/log/test_ranges.py::test_a_dense_range_is_offsets",
    f"{_TESTS}/log/test_ranges.py::test_the_ledger_counts_where_offsets_do_not",
    f"{_TESTS}/log/test_ranges.py::test_a_sparse_range_is_between_two_tokens",
)
"""Tests that take too long here, as plain Python or with a whole plane; others find what they would."""
