"""Files of one's own on the command line: what is refused, and how. A test of docs/own-events.md goes the way through."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from ofp_platform.registry.pack import load_pack
from ofp_platform_tests.cli.program import Ofp, Outcome, call, jsonl

HEADER = "ref,at,account,amount,note"
ROWS = [f"e{n},2026-03-01T00:0{n}:00Z,a{n % 2},{n}.50,n{n}" for n in range(6)]


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "payments.csv"
    path.write_text("\n".join([HEADER, *ROWS]) + "\n")
    return path


@pytest.fixture
def own(ofp: Ofp, events: Path, dsn: str, tmp_path: Path) -> Ofp:
    """The program in the home of a proposal, on a database of its own."""
    assert ofp("init", "--events", str(events)).code == 0

    def run(*arguments: str) -> Outcome:
        return call(*arguments, OFP_HOME=str(tmp_path / "home"), OFP_DATABASE_URL=dsn)

    return run


def test_a_pack_is_printed_and_nothing_is_written(ofp: Ofp, events: Path, tmp_path: Path) -> None:
    outcome = ofp("pack", "infer", str(events), "--name", "shop", "--type", "swipe")
    pack = load_pack(outcome.out)
    assert (pack.pack_id, list(pack.events)) == ("shop", ["swipe"])
    assert f"{events}: 6 rows" in outcome.err
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--key", "account"), "write KIND=COLUMN"),
        (("--key", "account=account", "--key", "account=note"), "each kind once"),
        (("--key", "account=acount"), "no column 'acount'"),
        (("--name", "9 lives"), "--name: '9 lives' is none"),
        (("--time", "ref"), "not all cells are times"),
    ],
)
def test_choices_that_cannot_be_are_refused_in_words(ofp: Ofp, events: Path, arguments: tuple[str, ...], words: str) -> None:
    assert words in ofp("pack", "infer", str(events), *arguments).refused()
    assert words in ofp("init", "--events", str(events), *arguments).refused()


def test_files_that_are_there_stay(own: Ofp, ofp: Ofp, events: Path, tmp_path: Path) -> None:
    before = (tmp_path / "home" / "pack.yaml").read_text()
    assert "exists; edit it, or replace it with --force" in ofp("init", "--events", str(events), "--name", "other").refused()
    assert (tmp_path / "home" / "pack.yaml").read_text() == before
    assert ofp("init", "--events", str(events), "--name", "other", "--force").code == 0
    assert "pack_id: other" in (tmp_path / "home" / "pack.yaml").read_text()


def test_options_of_a_file_want_a_file(ofp: Ofp, events: Path) -> None:
    assert "belong to --events FILE" in ofp("init", "--labels", str(events)).refused()
    assert "--label-delay" in ofp("init", "--events", str(events), "--label-delay", "a week").refused()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("tx,reported\nz1,2026-03-02T00:00:00Z\n", "no column has a value of column 'ref'"),
        ("tx\ne1\n", "no column says for each row when it became known"),
        ("tx,reported\n", "no row to look at"),
    ],
)
def test_a_file_of_labels_that_is_about_nothing(ofp: Ofp, events: Path, tmp_path: Path, labels: str, words: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(labels)
    assert words in ofp("init", "--events", str(events), "--labels", str(path)).refused()


def test_rows_that_are_no_events_are_named_and_the_others_go_in(own: Ofp, events: Path) -> None:
    events.write_text("\n".join([HEADER, ROWS[0], "e8,soon,a1,1.00,x", "e9,2026-03-01T00:09:00Z,a1,a lot,x", ROWS[1]]) + "\n")
    outcome = own("log", "import", str(events))
    assert outcome.code == 1
    assert outcome.out == "2 events appended, 2 rows refused\n"
    assert f"{events}:3: at: not a time" in outcome.err
    assert f"{events}:4: amount: not a number" in outcome.err
    assert "soon" not in outcome.shown
    assert own("projector", "catch-up").out.startswith("2 records, 2 applied")


def test_what_the_log_refuses_is_named_by_its_line(own: Ofp, events: Path) -> None:
    """A row without the partition's key is an event for the rules and none for the log."""
    events.write_text("\n".join([HEADER, ROWS[1], "e7,2026-03-01T00:00:00Z,,1.00,x"]) + "\n")
    outcome = own("log", "import", str(events))
    assert outcome.code == 1
    assert f"{events}:3: MISSING_PARTITION_KEY" in outcome.err
    assert outcome.out == "1 events appended, 1 rows refused\n"


def test_a_file_twice_counts_once(own: Ofp, events: Path) -> None:
    assert own("log", "import", str(events)).out == "6 events appended, 0 rows refused\n"
    assert own("log", "import", str(events)).out == "0 events appended, 0 rows refused, 6 were there\n"
    assert own("projector", "catch-up").out.startswith("6 records, 6 applied")


def test_nothing_to_import_and_rules_that_are_not_there(own: Ofp, ofp: Ofp, events: Path, tmp_path: Path) -> None:
    events.write_text(HEADER + "\n")
    assert "holds no row" in own("log", "import", str(events)).refused()
    assert "did you mean 'reff'" in own("log", "import", _with(tmp_path, "reff,at,account,amount,note\n" + ROWS[0])).refused()
    (tmp_path / "home" / "import.yaml").unlink()
    assert "`ofp init --events FILE` proposes one" in own("log", "import", str(events)).refused()


def test_labels_need_rules_and_a_type_that_the_pack_has(own: Ofp, tmp_path: Path) -> None:
    labels = _with(tmp_path, "tx,reported\ne1,2026-03-02T00:00:00Z\n")
    assert "has no section labels" in own("labels", "append", labels).refused()
    rules = tmp_path / "home" / "import.yaml"
    section = """
labels:
  event_type: refund
  event_id: tx
  label_type: fraud
  value: 1
  observed: {column: reported}
  admitted: observed
  source: history.labels
"""
    rules.write_text(rules.read_text() + section)
    assert "the pack knows no refund; it has payment" in own("labels", "append", labels).refused()
    rules.write_text(rules.read_text().replace("refund", "payment"))
    assert own("labels", "append", labels).out == "1 assertions appended, 0 were there, 0 rows refused\n"
    assert own("labels", "append", labels).out == "0 assertions appended, 1 were there, 0 rows refused\n"
    bad = own("labels", "append", _with(tmp_path, "tx,reported\ne2,soon\n"))
    assert bad.code == 1
    assert "rows.csv:2: reported: not a time" in bad.err


def test_an_intent_wants_events_and_labels(own: Ofp, events: Path) -> None:
    assert own("projector", "catch-up").code == 0
    assert "is empty: append events first" in own("intent", "new", "rows").refused()
    assert own("log", "import", str(events)).code == 0
    assert "append labels first" in own("intent", "new", "rows").refused()
    assert "the pack knows no refund" in own("intent", "new", "rows", "--type", "refund").refused()
    assert "--maturity" in own("intent", "new", "rows", "--maturity", "long").refused()


def test_a_pack_of_ones_own_without_a_rule_cannot_decide(own: Ofp, events: Path, tmp_path: Path) -> None:
    assert own("log", "import", str(events)).code == 0
    (tmp_path / "home" / "decision.yaml").unlink()
    assert "write decision.yaml beside the pack" in own("decide").refused()


def _with(folder: Path, text: str) -> str:
    path = folder / "rows.csv"
    path.write_text(text)
    return str(path)


def test_a_file_of_keys_and_times_becomes_the_rows_of_a_dataset(own: Ofp, events: Path, tmp_path: Path) -> None:
    for arguments in (("migrate",), ("log", "import", str(events)), ("projector", "catch-up"), ("facts", "publish")):
        assert own(*arguments).code == 0
    table = tmp_path / "questions.csv"
    table.write_text("who;event_timestamp;fraud\na1;2026-03-01 00:09:00;1\na0;2026-03-01 00:03:00;0\n")
    asked = ("dataset", "from-entities", str(table), "--name", "mine", "--label", "fraud")
    assert "no column is called account_id" in own(*asked).refused()
    assert "did you mean 'who'?" in own(*asked, "--key", "account=woh").refused()
    done = own(*asked, "--key", "account=who")
    assert done.code == 0, done
    dataset = done.out.splitlines()[-1].split()[0]
    own("dataset", "load", dataset, "--to", str(tmp_path / "rows"))
    rows = pq.read_table(tmp_path / "rows" / "rows").to_pylist()
    assert [(row["account_id"], row["fraud"]) for row in rows] == [("a1", 1), ("a0", 0)]
    for row in rows:
        asked_online = ("--key", f"account:{row['account_id']}", "--group", "account_activity:v1")
        served = own("features", "get", *asked_online, "--as-of", f"{row['as_of_time_utc']:%Y-%m-%dT%H:%M:%SZ}")
        features = json.loads(served.out)["snapshot"]["by_key"][0]["by_group"][0]["features"]
        prefix = "account_activity_v1__"
        assert {name: f"{v:f}" if isinstance(v, Decimal) else v for name, v in row.items() if name.startswith(prefix)} == {
            f"{prefix}{name}": value for name, value in features.items()
        }
    table.write_text("account_id,event_timestamp\na1,2026-03-01T00:09:00Z\na0,soon\n")
    refused = own("dataset", "from-entities", str(table), "--name", "mine").refused()
    assert f"{table}:3: event_timestamp: not a time" in refused
    assert "1 rows cannot be read" in refused


def test_reports_in_a_log_of_ones_own_are_labels_by_a_file_beside_the_pack(own: Ofp, tmp_path: Path) -> None:
    home = tmp_path / "home"
    pack = home / "pack.yaml"
    pack.write_text(pack.read_text().replace("events:\n", "events:\n  complaint:\n    keys: {account: account}\n", 1))
    profile = YAML(typ="safe").load((home / "profile.yaml").read_text())
    events = []
    for number, (kind, payload) in enumerate(
        [("payment", {"account": "a1"}), ("complaint", {"account": "a1", "about": "e-0"}), ("complaint", {"account": "a1"})]
    ):
        head = {
            "event_id": f"e-{number}",
            "event_type": kind,
            "schema_version": "v1",
            "ts_utc": f"2026-03-0{number + 1}T00:00:00Z",
        }
        events.append({**head, **profile["context_pins"], "payload": payload})
    assert own("log", "append", jsonl(tmp_path / "events.jsonl", *events)).code == 0
    assert "write reports.yaml beside the pack" in own("labels", "load").refused()
    rule = {"event_type": "complaint", "about_type": "paymnt", "about_field": "about", "label_type": "fraud"}
    (home / "reports.yaml").write_text(json.dumps(rule))
    assert "about_type: the pack knows no paymnt; did you mean 'payment'?" in own("labels", "load").refused()
    (home / "reports.yaml").write_text(json.dumps({**rule, "about_type": "payment"}))
    loaded = own("labels", "load")
    assert loaded.out == "1 assertions appended, 0 were there\n"
    assert "a report that names no event" in loaded.err
    assert own("labels", "load").out == "0 assertions appended, 1 were there\n"
    assert "  1  payment\n" in own("labels", "show", "--event", "e-0").out
