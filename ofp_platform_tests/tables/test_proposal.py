"""What the columns of a file are taken for."""

from __future__ import annotations

from typing import Any

import pytest

from ofp_platform.tables.cell_values import TimeFormat
from ofp_platform.tables.proposal import Choices, Proposal, propose, study
from ofp_platform.tables.table_file import Cell, TableFault, TablePart

ROWS = 40


def column(kind: str) -> list[Cell]:
    made: dict[str, list[Any]] = {
        "id": [f"TX-{n}" for n in range(ROWS)],
        "number id": [str(10_000 + n) for n in range(ROWS)],
        "time": [f"2026-03-01T00:{n:02}:00+02:00" for n in range(ROWS)],
        "naive": [f"2026-03-01 00:{n:02}:00" for n in range(ROWS)],
        "seconds": [str(1_770_000_000 + n) for n in range(ROWS)],
        "wallet": [f"W{n % 7}" for n in range(ROWS)],
        "shop": [f"Shop {n % 5}" for n in range(ROWS)],
        "amount": [f"{n}.{n:02}" for n in range(ROWS)],
        "whole": [str(n * 3) for n in range(ROWS)],
        "yes": ["Y" if n % 3 else "N" for n in range(ROWS)],
        "channel": [("POS", "WEB")[n % 2] for n in range(ROWS)],
        "mail": [f"user{n % 9}@example.org" for n in range(ROWS)],
        "empty": [None] * ROWS,
        "prose": [f"many words {n}" for n in range(ROWS)],
        "zip": [f"0{n % 9}123" for n in range(ROWS)],
    }
    return made[kind]


def proposed(kinds: dict[str, str], **choices: Any) -> Proposal:
    cells = {name: column(kind) for name, kind in kinds.items()}
    half = ROWS // 2
    parts = [
        TablePart(list(range(half)), {name: cell[:half] for name, cell in cells.items()}),
        TablePart(list(range(half)), {name: cell[half:] for name, cell in cells.items()}),
    ]
    return propose(study(parts), Choices(**choices))


def test_a_file_is_understood_by_its_cells_and_names() -> None:
    kinds = {"Reference": "id", "BookedAt": "time", "walletNo": "wallet", "Shop Name": "shop", "Amount EUR": "amount"}
    kinds |= {"Items": "whole", "Is Recurring": "yes", "Channel": "channel", "E-Mail": "mail", "Note": "prose", "x": "empty"}
    found = proposed(kinds)
    assert (found.event_id, found.time, found.time_format) == ("Reference", "BookedAt", TimeFormat.ISO)
    assert found.names_zone
    assert found.keys == {"account": "walletNo", "merchant": "Shop Name"}
    assert (found.amount, found.digits) == ("Amount EUR", 2)
    assert (found.integers, found.booleans, found.categories) == (("Items",), ("Is Recurring",), ("Channel",))
    assert set(found.left_out) == {"E-Mail", "Note", "x"}
    assert "raw identifiers" in found.left_out["E-Mail"]
    assert found.field_names["walletNo"] == "wallet_no"
    assert found.rows == ROWS


def test_times_without_a_zone_and_counts_since_1970_are_seen() -> None:
    assert not proposed({"at": "naive", "account": "wallet"}).names_zone
    counted = proposed({"ts": "seconds", "account": "wallet"})
    assert counted.time_format is TimeFormat.SECONDS
    assert counted.names_zone


def test_ids_made_of_digits_and_files_without_any() -> None:
    assert proposed({"transaction_id": "number id", "at": "time", "account": "wallet"}).event_id == "transaction_id"
    assert proposed({"at": "time", "account": "wallet"}).event_id is None


def test_zeros_in_front_are_no_number() -> None:
    assert proposed({"at": "time", "account": "wallet", "area": "zip"}).integers == ()


def test_a_label_is_never_a_feature() -> None:
    found = proposed({"id": "id", "at": "time", "account": "wallet", "is_fraud": "yes"})
    assert found.label == "is_fraud"
    assert "is_fraud" not in found.booleans


def test_a_person_may_say_otherwise() -> None:
    kinds = {"a": "id", "b": "time", "c": "naive", "d": "wallet", "e": "shop", "f": "whole"}
    found = proposed(kinds, event_id="a", time="c", amount="f", keys={"card": "d", "device": "e"}, event_type="swipe")
    assert (found.event_id, found.time, found.amount) == ("a", "c", "f")
    assert found.keys == {"card": "d", "device": "e"}
    assert found.event_type == "swipe"


@pytest.mark.parametrize(
    ("kinds", "choices", "words"),
    [
        ({"account": "wallet"}, {}, "a column with the time of each event was not seen"),
        ({"at": "time", "note": "prose"}, {}, "name one, as in --key account=COLUMN"),
        ({"at": "time", "account": "wallet"}, {"time": "when"}, "--time: no column 'when'"),
        ({"at": "prose", "account": "wallet"}, {"time": "at"}, "not all cells are times"),
        ({"at": "time", "account": "wallet"}, {"event_id": "account"}, "--id 'account': the column repeats"),
        ({"at": "time", "who": "mail"}, {"keys": {"account": "who"}}, "raw identifiers"),
        ({"at": "time", "who": "wallet"}, {"keys": {"person": "who"}}, "no key type"),
        ({"at": "time", "account": "wallet", "n": "prose"}, {"amount": "n"}, "--amount 'n': not all cells are numbers"),
    ],
)
def test_what_is_missing_or_wrong_is_said(kinds: dict[str, str], choices: dict[str, Any], words: str) -> None:
    with pytest.raises(TableFault, match=words):
        proposed(kinds, **choices)


def test_an_empty_file_is_no_proposal() -> None:
    with pytest.raises(TableFault, match="no row"):
        study([])
