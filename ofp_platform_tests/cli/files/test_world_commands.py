"""`ofp world`: made, sealed, looked at, and its truth loaded; what cannot be is refused in words."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ofp_platform_tests.cli.program import Ofp, call
from ofp_platform_tests.simulation.test_handbook import table

RULES = """\
events:
  event_type: card_payment
  event_id: id
  time: {column: at}
  fields:
    account_id: {column: account, type: key}
labels:
  event_type: card_payment
  event_id: id
  label_type: fraud
  value: 1
  observed: {column: told}
  source: desk
"""


@pytest.fixture
def handbook(tmp_path: Path) -> Path:
    path = tmp_path / "handbook.parquet"
    pq.write_table(table(300), path)
    return path


def test_a_world_is_made_sealed_verified_listed_and_shown(ofp: Ofp, tmp_path: Path) -> None:
    assert ofp("world", "list").out == "no world: `ofp world make` writes one\n"
    made = ofp("world", "make", "june", "--payments", "500")
    assert made.code == 0, made
    assert "not sealed yet: `ofp world seal june`" in made.out
    assert "not sealed" in ofp("world", "list").out
    unsealed = ofp("world", "verify", "june")
    assert (unsealed.code, unsealed.out) == (
        1,
        "june: world june is not sealed: `ofp world seal june` seals what `ofp world make` wrote\n",
    )
    assert "is not sealed" in ofp("world", "show", "june").refused()
    assert ofp("world", "seal", "june").out.startswith("sealed: june, manifest ")
    assert ofp("world", "seal", "june").out.startswith("was sealed: june")
    digest = json.loads(ofp("world", "show", "june", "--json").out)["digest"]
    verified = ofp("world", "verify", "june")
    assert (verified.code, verified.out.startswith("as it was sealed: june, ")) == (0, True)
    assert digest in verified.out
    assert json.loads(ofp("world", "list", "--json").out) == [
        {
            "world": "june",
            "state": "sealed",
            "manifest_digest": digest,
            "rows": json.loads(made_again(ofp))["outputs"][0]["files"][0]["rows"],
        }
    ]
    damaged = next((tmp_path / "home" / "objects" / "oracle" / "june").rglob("part-*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    assert "its bytes are not those of the manifest" in ofp("world", "verify", "june").out
    assert ofp("world", "verify", "june").code == 1


def made_again(ofp: Ofp) -> str:
    """The same call prints the same and changes nothing."""
    return ofp("world", "make", "june", "--payments", "500", "--json").out


def test_another_world_of_that_name_is_refused(ofp: Ofp) -> None:
    assert ofp("world", "make", "w", "--rings").code == 0
    assert "another world of that name is there" in ofp("world", "make", "w", "--payments", "100").refused()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "say what the world is made of: one of --payments, --rings, --handbook, --rows"),
        (("--rings", "--payments", "5"), "one of --payments, --rings"),
        (("--rings", "--leave-out"), "go with --rows"),
        (("--handbook", "nowhere.parquet"), "nowhere.parquet"),
    ],
)
def test_a_source_that_is_none_or_several_is_refused(ofp: Ofp, arguments: tuple[str, ...], words: str) -> None:
    assert words in ofp("world", "make", "w", *arguments).refused()


def test_rows_that_are_wrong_make_no_world_unless_they_are_left_out(ofp: Ofp, tmp_path: Path) -> None:
    (tmp_path / "home" / "import.yaml").write_text(RULES)
    rows, labels = tmp_path / "rows.csv", tmp_path / "told.csv"
    rows.write_text("id,at,account\na,2026-01-01T00:00:00Z,x\nb,never,y\n")
    labels.write_text("id,told\na,2026-01-05T00:00:00Z\n")
    arguments = ("world", "make", "own", "--rows", str(rows), "--labels", str(labels))
    refused = ofp(*arguments).refused()
    assert "rows.csv:3: at: " in refused
    assert "1 rows are wrong: mend them, or make the world without them (--leave-out)" in refused
    assert "no world" in ofp("world", "list").out
    made = json.loads(ofp(*arguments, "--leave-out", "--json").out)
    assert [(item["output"], item["role"], item["files"][0]["rows"]) for item in made["outputs"]] == [
        ("events", "business_traffic", 1),
        ("labels", "truth", 1),
    ]
    assert made["maker"]["parameters"]["rows_left_out"] == 1


def test_truth_goes_to_the_label_store_once_the_world_is_sealed(handbook: Path, dsn: str, tmp_path: Path) -> None:
    variables = {"OFP_HOME": str(tmp_path / "home"), "OFP_DATABASE_URL": dsn, "OFP_PROFILE": "handbook"}
    (tmp_path / "home").mkdir()
    assert call("migrate", **variables).code == 0
    assert call("world", "make", "year", "--handbook", str(handbook), **variables).code == 0
    assert call("projector", "catch-up", **variables).code == 0
    assert "is not sealed" in call("labels", "load", "--world", "year", **variables).refused()
    assert call("world", "seal", "year", **variables).code == 0
    loaded = json.loads(call("labels", "load", "--world", "year", "--json", **variables).out)
    assert (loaded["appended"], loaded["known"]) == (60, 0)
    again = json.loads(call("labels", "load", "--handbook", str(handbook), "--json", **variables).out)
    assert (again["appended"], again["known"]) == (0, 60)
    two = call("labels", "load", "--world", "year", "--handbook", str(handbook), **variables).refused()
    assert "are two sources" in two
