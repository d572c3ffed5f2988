"""Labels by precedence of sources against the law read aloud; identities of datasets without a rule are what they were."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ofp_platform.api.overview_examples import intent_example, manifest_example
from ofp_platform.offline.labels.label_store import LabelStore, as_observed
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.build_intent import DatasetBuild, LabelRequest, ResolutionRule, SourceClass, request_id
from ofp_platform.vocabulary.offline.build_plan import PRECEDENCE, LabelBasis
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion
from ofp_platform.vocabulary.times import format_time
from ofp_platform_tests.oracle.labels import resolve, resolve_by_class

SECOND = 1_000_000
START = 1_700_000_000 * SECOND
CLASSES = {
    "case_investigation": SourceClass.HUMAN,
    "desk": SourceClass.HUMAN,
    "bank": SourceClass.EXTERNAL,
    "rule": SourceClass.AUTOMATED,
}
IDENTITY = "ae27c14fbbf9141f31b8a8df59d083a4f0966b40562749e90faab37558054c92"
REQUEST = "7a19b74389bac471e740f0a8bdcd80e14a9c76d73ae96c9f504ee94ec7c93747"
_runs = count()


def new_run() -> ContextPins:
    return ContextPins(scenario_id="rules", run_id=f"rules-{next(_runs)}", manifest_fingerprint="a" * 64, parameter_hash="b" * 64)


@pytest.fixture(scope="module")
def pool(module_dsn: str) -> Iterator[Pool]:
    with open_pool(module_dsn) as opened:
        yield opened


def assertion(event: tuple[str, str], observed: int, value: int, source: str, label_type: str) -> LabelAssertion:
    return LabelAssertion(
        event_class=event[0],
        event_id=event[1],
        label_type=label_type,
        value=value,
        effective_time_utc=format_time(START),
        observed_time_utc=format_time(START + observed * SECOND),
        source=source,
    )


def basis(store: LabelStore, as_of: int, classes: dict[str, SourceClass]) -> LabelBasis:
    return LabelBasis(
        label_type="fraud",
        as_of_utc=format_time(START + as_of * SECOND),
        maturity_seconds=0,
        next_sequence=store.next_sequence(),
        rule=PRECEDENCE,
        source_classes=classes,
    )


EVENTS = st.tuples(st.sampled_from(("payment", "login")), st.sampled_from(("e-1", "e-2")))
ASSERTIONS = st.lists(
    st.builds(
        assertion,
        EVENTS,
        st.integers(0, 5),
        st.integers(0, 2),
        st.sampled_from(sorted(CLASSES)),
        st.sampled_from(("fraud", "fraud", "dispute")),
    ),
    max_size=30,
)


@settings(max_examples=100)
@given(ASSERTIONS, st.integers(-1, 6), st.permutations(sorted(CLASSES)))
def test_the_foremost_class_holds(pool: Pool, assertions: list[LabelAssertion], as_of: int, order: list[str]) -> None:
    store = LabelStore(pool, new_run())
    store.append(assertions, as_observed)
    resolved = store.resolve(basis(store, as_of, {source: CLASSES[source] for source in order}))
    expected = {
        (one.event_class, one.event_id): held.assertion_id
        for one in assertions
        if (held := resolve_by_class(assertions, (one.event_class, one.event_id), "fraud", START + as_of * SECOND, CLASSES))
    }
    assert {(row["event_class"], row["event_id"]): row["assertion_id"] for row in resolved.table.to_pylist()} == expected


def test_one_class_is_the_rule_without_classes(pool: Pool) -> None:
    """And two classes are not: the later word of a machine does not take back that of a person."""
    store, event = LabelStore(pool, new_run()), ("payment", "e-1")
    said = [assertion(event, 1, 1, "desk", "fraud"), assertion(event, 2, 0, "rule", "fraud")]
    store.append(said, as_observed)
    one_class = dict.fromkeys(CLASSES, SourceClass.EXTERNAL)
    latest = resolve(said, event, "fraud", START + 5 * SECOND)
    assert latest == said[1]
    assert store.resolve(basis(store, 5, one_class)).table["value"].to_pylist() == [0]
    assert store.resolve(basis(store, 5, CLASSES)).table["value"].to_pylist() == [1]


def test_a_source_without_a_class_is_refused_where_it_counts(pool: Pool) -> None:
    store, event = LabelStore(pool, new_run()), ("payment", "e-1")
    store.append([assertion(event, 1, 1, "desk", "fraud"), assertion(event, 3, 0, "stranger", "fraud")], as_observed)
    assert store.resolve(basis(store, 2, CLASSES)).table["value"].to_pylist() == [1]
    with pytest.raises(BuildRefused, match="of stranger none is declared") as caught:
        store.resolve(basis(store, 3, CLASSES))
    assert (caught.value.reason, caught.value.field) == (BuildReason.BASIS_UNRESOLVED, "label.source_classes")


def test_classes_go_with_precedence() -> None:
    usual = {"label_type": "fraud", "as_of_utc": "2026-01-30T00:00:00Z", "maturity_seconds": 0}
    for wrong in (
        {"rule": "precedence"},
        {"source_classes": {"desk": "human"}},
        {"rule": "latest_observed", "source_classes": {"desk": "human"}},
        {"rule": "precedence", "source_classes": {}},
        {"rule": "precedence", "source_classes": {"desk": "robot"}},
        {"rule": "newest"},
    ):
        with pytest.raises(ValidationError):
            LabelRequest.model_validate({**usual, **wrong})
    right = LabelRequest.model_validate({**usual, "rule": "precedence", "source_classes": {"desk": "human"}})
    assert (right.rule, right.source_classes) == (ResolutionRule.PRECEDENCE, {"desk": SourceClass.HUMAN})
    with pytest.raises(ValidationError):
        LabelBasis.model_validate({**usual, "next_sequence": 1, "rule": PRECEDENCE})


def test_digests_without_a_rule_are_what_they_were() -> None:
    """Of the examples, as the release before rules computed them."""
    manifest = manifest_example()
    assert manifest.dataset_identity == IDENTITY
    assert request_id(DatasetBuild.model_validate(intent_example())) == REQUEST


def test_the_rule_is_part_of_the_identity() -> None:
    wire = manifest_example().wire()
    identities = {digest_of(wire["label_basis"])}
    for classes in ({"desk": "human"}, {"desk": "external"}, {"desk": "human", "bank": "external"}):
        by_class = LabelBasis.model_validate({**wire["label_basis"], "rule": PRECEDENCE, "source_classes": classes})
        identities.add(digest_of(by_class.model_dump(mode="json", exclude_none=True)))
    assert len(identities) == 4
    # the order in which classes are declared is no meaning
    one, other = (
        LabelBasis.model_validate({**wire["label_basis"], "rule": PRECEDENCE, "source_classes": dict(pairs)})
        for pairs in ([("a", "human"), ("b", "external")], [("b", "external"), ("a", "human")])
    )
    assert digest_of(one.model_dump(mode="json")) == digest_of(other.model_dump(mode="json"))
