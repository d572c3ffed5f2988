"""One lineage: from the world to what is in force, to decisions, cases and labels, and with these into the next round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import dagster as dg
import pytest

from ofp_platform.orchestration.offline.loop_assets import NEXT_ROUND

Links = Mapping[str, set[str]]
FIRST_ROUND = (
    "world/pack",
    "control/run",
    "ingress/receipts",
    "log/events",
    "online/projection",
    "offline/parity_report",
    "offline/manifest",
    "learning/model",
    "control/bundles",
    "loop/decisions",
    "loop/cases",
    "loop/labels",
)
ROWS = ("log/events", "offline/archive_segment", "offline/build_plan", "offline/replay", "offline/dataset", "offline/manifest")
NEXT = ("loop/labels", "offline/labels", "offline/dataset", "offline/manifest", "learning/challenger")
DONE = ("loop/decisions", "loop/actions", "loop/audit_heads", "loop/reconciliation")


@pytest.fixture
def deps(definitions: dg.Definitions) -> dict[str, set[str]]:
    """What each asset depends on; the one link that closes the circle is told in metadata, for a graph has no circles."""
    links: dict[str, set[str]] = {}
    for spec in definitions.resolve_all_asset_specs():
        links.setdefault(spec.key.to_user_string(), set()).update(dep.asset_key.to_user_string() for dep in spec.deps)
        if (following := spec.metadata.get(NEXT_ROUND)) is not None:
            assert isinstance(following, dg.DagsterAssetMetadataValue)
            links.setdefault(following.asset_key.to_user_string(), set()).add(spec.key.to_user_string())
    return links


def missing(deps: Links, chain: tuple[str, ...]) -> Iterator[str]:
    """Links of a chain that are no dependencies."""
    for above, below in pairwise(chain):
        if above not in deps.get(below, set()):
            yield f"{below} does not depend on {above}"


def reached(deps: Links, start: str) -> set[str]:
    """All that depends on an asset, and the asset."""
    whole, waiting = {start}, [start]
    while waiting:
        above = waiting.pop()
        below = {key for key, above_it in deps.items() if above in above_it} - whole
        whole |= below
        waiting += below
    return whole


@pytest.mark.parametrize("chain", [FIRST_ROUND, ROWS, NEXT, DONE])
def test_no_link_is_missing(deps: Links, chain: tuple[str, ...]) -> None:
    assert list(missing(deps, chain)) == []


@pytest.mark.parametrize("lost", list(pairwise(FIRST_ROUND)) + list(pairwise(NEXT)))
def test_a_link_that_is_lost_is_named(deps: Links, lost: tuple[str, str]) -> None:
    above, below = lost
    without = {key: above_it - {above} if key == below else above_it for key, above_it in deps.items()}
    words = f"{below} does not depend on {above}"
    assert words in [*missing(without, FIRST_ROUND), *missing(without, NEXT)]


def test_the_loop_is_reached_from_the_world_and_from_each_of_its_own(deps: Links) -> None:
    loop = set(FIRST_ROUND[FIRST_ROUND.index("offline/manifest") :]) | set(NEXT)
    assert loop <= reached(deps, "world/pack")
    for key in loop - {"learning/challenger"}:
        assert loop <= reached(deps, key), key


def test_nothing_follows_from_a_challenger_by_itself(deps: Links) -> None:
    assert reached(deps, "learning/challenger") == {"learning/challenger"}


def test_no_more_than_one_link_is_left_to_metadata(definitions: dg.Definitions) -> None:
    closing = [spec.key.to_user_string() for spec in definitions.resolve_all_asset_specs() if NEXT_ROUND in spec.metadata]
    assert closing == ["loop/labels"]
