"""Who acts and why: what cannot stand in a record is refused before anything is done, by every command that asks for it."""

from __future__ import annotations

import getpass

import pytest

from ofp_platform.cli.options import MOST_REASON
from ofp_platform_tests.cli.program import call
from ofp_platform_tests.cli.terminal.test_printed_facts import COMMANDS

WORDS = {"--actor": "a name has letters, digits and _ . : / -", "--reason": "say why: it is kept for good"}
OPTIONAL_REASON = {"intent cancel"}
"""Commands whose reason may be left out."""
FILTERS = {"projector failures", "quarantine list"}
"""Commands that list by reason."""


def asked(name: str, option: str, text: str) -> str:
    """What a command says of a value of an option, with something for all else that it needs."""
    arguments = name.split()
    for parameter in COMMANDS[name].params:
        if parameter.param_type_name == "argument":
            arguments += ["normal" if parameter.name == "mode" else "1"]
        elif parameter.required and parameter.opts[0] != option and not parameter.is_flag:
            arguments += [parameter.opts[0], "some words"[: 4 if parameter.opts[0] == "--actor" else 10]]
    outcome = call(*arguments, option, text)
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    return " ".join(outcome.err.split())


def taking(option: str) -> list[str]:
    return [name for name, command in COMMANDS.items() if any(option in parameter.opts for parameter in command.params)]


@pytest.mark.parametrize("name", taking("--actor"))
def test_a_name_that_no_record_can_hold(name: str) -> None:
    if any(parameter.name == "actor" and parameter.callback is None for parameter in COMMANDS[name].params):
        pytest.skip("it is looked at with the default, the user of the process")
    for text in ("", " ", "a b", "-a", "a" * 129, "a\n"):
        assert f"Invalid value for '--actor': {WORDS['--actor']}" in asked(name, "--actor", text)


@pytest.mark.parametrize("name", sorted({*taking("--reason")} - OPTIONAL_REASON - FILTERS))
def test_a_reason_that_says_nothing_or_too_much(name: str) -> None:
    for text in ("", " \n"):
        assert f"Invalid value for '--reason': {WORDS['--reason']}" in asked(name, "--reason", text)
    assert "'--reason': 10,000 characters, and a record keeps at most" in asked(name, "--reason", "x" * 10_000)


def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from ofp_platform.cli.options import actor_or_user

    assert actor_or_user("ann") == "ann"
    monkeypatch.setattr(getpass, "getuser", lambda: "bob")
    assert actor_or_user(None) == "bob"
    for error in (KeyError("uid not found"), OSError("no user")):

        def unknown(error: Exception = error) -> str:
            raise error

        monkeypatch.setattr(getpass, "getuser", unknown)
        with pytest.raises(Exception, match="the user of this process has no name that can stand in a record"):
            actor_or_user(None)
    monkeypatch.setattr(getpass, "getuser", lambda: "o'brien")
    with pytest.raises(Exception, match="say who it is"):
        actor_or_user(None)


def test_the_bounds_are_those_of_the_records() -> None:
    from ofp_platform.vocabulary.loop.posture import MOST_REASON as OF_POSTURE

    assert MOST_REASON == OF_POSTURE
