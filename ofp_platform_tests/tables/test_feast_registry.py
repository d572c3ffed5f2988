"""Feast's registry dumps: what fits becomes a pack, everything else is named with the reason.

feast/registry_dump.json is what Feast 0.67 printed for the definitions in feast/feast_repo.py.txt.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.pack import load_pack
from ofp_platform.tables.feast_registry import read_registry
from ofp_platform.tables.table_file import TableFault
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform_tests.cli.program import call

DUMP = Path(__file__).parent / "feast" / "registry_dump.json"


def dump(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(DUMP.read_bytes())
    return {**content, **changes}


def view(**changes: Any) -> dict[str, Any]:
    """The dump with another stream feature view."""
    content = dump()
    content["streamFeatureViews"][0]["spec"].update(changes)
    return content


def test_a_real_dump_is_a_pack_and_what_does_not_fit_is_said() -> None:
    imported = read_registry(DUMP.read_bytes(), "dump.json")
    pack = load_pack(canonical_bytes(imported.pack).decode())
    (group,) = compile_pack(pack).pack.groups
    assert (pack.pack_id, group.name, group.key_type.value, group.ttl_seconds) == (
        "shop",
        "account_payments",
        "account",
        2_592_000,
    )
    assert (group.owner, group.description) == ("team@example.org", "What an account pays.")
    assert group.tags == ("domain_fraud", "service_fraud_v1")
    assert [(one.name, one.aggregation.value, one.value, one.window) for one in group.features] == [
        ("count_amount_minor_3600s", "count", None, "1h"),
        ("sum_amount_minor_86400s", "sum", "amount_minor", "1d"),
        ("avg_amount_minor_2592000s", "mean", "amount_minor", "30d"),
        ("count_distinct_channel_604800s", "distinct_count", "channel", "7d"),
    ]
    assert {key.value: name for key, name in pack.events["payments"].keys.items()} == {"account": "account_id"}
    parts = [note.split(":")[0] for note in imported.notes]
    for part in (
        "feature service fraud_v1",
        "feature view merchant_stats",
        "on demand feature view share",
        "stream feature view account_payments, p90 of amount_minor",
        "stream feature view account_payments, avg of amount_minor",
        "stream feature view account_payments",
    ):
        assert part in parts, imported.notes


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (view(entities=["account", "merchant"]), "a group here is of one key"),
        (view(entities=["__dummy"]), "has no key type"),
        (view(aggregations=[]), "it has no aggregations"),
        (view(aggregations=[{"column": "amount_minor", "function": "sum", "timeWindow": "0s"}]), "not a whole number of seconds"),
        (view(aggregations=[{"column": "channel", "function": "sum", "timeWindow": "60s"}]), "STRING; sum needs integers"),
        (view(aggregations=[{"column": "none", "function": "max", "timeWindow": "60s"}]), "the column's type is not said"),
        (view(streamSource={"name": "a b"}), "is no name of an event type"),
        (dump(streamFeatureViews=[]), "feature view merchant_stats: its values are computed elsewhere"),
        (dump(streamFeatureViews=[{"spec": {}}]), "no dump of a Feast registry as Feast"),
        ([], "it has no project"),
    ],
)
def test_where_nothing_fits_it_is_said_why(content: Any, words: str) -> None:
    with pytest.raises(TableFault) as fault:
        read_registry(json.dumps(content), "dump.json")
    assert words in str(fault.value)


def test_an_entity_that_is_called_otherwise_is_named(tmp_path: Path) -> None:
    content = view(entities=["driver"])
    content["entities"] = [{"spec": {"name": "driver", "joinKey": "driver_id"}}]
    path = tmp_path / "dump.json"
    path.write_text(json.dumps(content))
    assert "entity driver: no key type is called so" in call("pack", "from-feast", str(path)).refused()
    outcome = call("pack", "from-feast", str(path), "--key", "driver=customer")
    assert outcome.code == 0
    assert load_pack(outcome.out).groups[0].key_type.value == "customer"
    assert "p90 of amount_minor: there is no such aggregation here" in outcome.err


def test_what_is_no_dump_is_refused(tmp_path: Path) -> None:
    assert "No such file" in call("pack", "from-feast", str(tmp_path / "none")).refused()
    path = tmp_path / "dump.json"
    path.write_text("{")
    assert "feast registry-dump > FILE" in call("pack", "from-feast", str(path)).refused()
