"""The files of a proposal are what the program reads, whatever the columns are called."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.decisions.decision_file import load_decision_point
from ofp_platform.registry.pack import load_pack
from ofp_platform.tables.cell_values import TimeFormat
from ofp_platform.tables.import_rules import load_import_rules
from ofp_platform.tables.proposal import Choices, Proposal, propose, study
from ofp_platform.tables.proposal_text import LabelFile, decision_text, import_text, pack_text, profile_text
from ofp_platform.tables.table_file import TablePart
from ofp_platform.vocabulary.profile import load_profile
from ofp_platform.vocabulary.raw_identifier import is_raw_key

COLUMN_NAME = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=90).filter(
    lambda name: name.strip() and not is_raw_key(name)
)


def proposal(names: list[str], ids: bool, zone: str, label: bool) -> Proposal:
    who, when, amount, flag, kind = names[:5]
    cells = {who: [f"w{n % 3}" for n in range(9)], when: [f"2026-03-01T0{n}:00:00{zone}" for n in range(9)]}
    cells |= {amount: [f"{n}.5" for n in range(9)], flag: ["yn"[n % 2] for n in range(9)], kind: ["abc"[n % 3] for n in range(9)]}
    if ids:
        cells["Ref No"] = [f"e{n}" for n in range(9)]
    if label:
        cells["is_fraud"] = ["01"[n % 2] for n in range(9)]
    choices = Choices(time=when, amount=amount, keys={"account": who})
    return propose(study([TablePart(list(range(9)), {name: list(column) for name, column in cells.items()})]), choices)


@given(
    names=st.lists(COLUMN_NAME, min_size=5, max_size=5, unique=True),
    ids=st.booleans(),
    zone=st.sampled_from(["", "Z", "+02:00"]),
    label=st.booleans(),
    label_file=st.booleans(),
)
def test_whatever_the_columns_are_called_the_files_are_read(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], ids: bool, zone: str, label: bool, label_file: bool
) -> None:
    folder = tmp_path_factory.mktemp("own")
    proposed = proposal(names, ids, zone, label)
    labels = LabelFile(names[0], names[1], TimeFormat.ISO, False, None, "chargebacks") if label_file else None
    files = {
        "pack.yaml": pack_text(proposed, "own"),
        "import.yaml": import_text(proposed, labels, "7d"),
        "decision.yaml": decision_text(proposed),
        "profile.yaml": profile_text(proposed, "own", "0" * 64),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    pack = load_pack(files["pack.yaml"])
    rules = load_import_rules(folder / "import.yaml")
    point = load_decision_point(folder / "decision.yaml")
    profile = load_profile(folder / "profile.yaml")
    routing = pack.events[rules.events.event_type]
    assert set(routing.fields) == set(rules.events.fields), "what features may read is what the rules take out of the file"
    assert rules.events.time.column == names[1]
    assert rules.events.time.zone == ("UTC" if zone == "" else None)
    assert rules.events.event_id == ("Ref No" if ids else None)
    assert {kind.value: name for kind, name in routing.keys.items()} == point.key_fields
    assert (rules.labels is not None) == (label_file or (label and ids))
    assert profile.partition_key.removeprefix("payload.") in routing.keys.values()
    assert Path(profile.pack) == folder / "pack.yaml"
