"""What is wrong around a command is told in words, on stderr, with exit code 1."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from ofp_platform.cli.environment import Environment
from ofp_platform.cli.terminal.refusals import MIGRATE_FIRST, CommandRefused, words_for
from ofp_platform_tests.api.keys import write_principals
from ofp_platform_tests.cli.program import Ofp

STATUS = ("projector", "status")
NEEDS_DATABASE = [
    STATUS,
    ("projection", "list"),
    ("projection", "rebuild"),
    ("log", "ends"),
    ("snapshot", "show", "0" * 64),
    ("features", "get", "--key", "account:a", "--group", "account_activity:v1", "--as-of", "2026-02-05T00:00:00Z"),
]


@pytest.mark.parametrize("command", NEEDS_DATABASE, ids=" ".join)
def test_a_database_without_the_schema(ofp: Ofp, empty_dsn: str, command: tuple[str, ...]) -> None:
    assert ofp(*command, OFP_DATABASE_URL=empty_dsn).refused() == f"{MIGRATE_FIRST}\n"


def test_a_database_that_is_down(ofp: Ofp, monkeypatch: pytest.MonkeyPatch) -> None:
    from ofp_platform.storage import postgres

    patient = postgres.open_pool
    monkeypatch.setattr("ofp_platform.online.plane.open_pool", lambda dsn, max_size: patient(dsn, timeout_seconds=0.2))
    said = ofp(*STATUS).refused()
    assert said.startswith("PostgreSQL (host '127.0.0.1', port 1, database 'none') does not answer")
    assert said.endswith("Is it running, and is the DSN right? `ofp doctor` looks at both\n")
    assert "does not answer" in ofp("migrate").refused()


def test_a_dsn_that_is_none(ofp: Ofp) -> None:
    said = ofp("migrate", OFP_DATABASE_URL="postgres//nowhere:secret").refused()
    assert said.startswith("OFP_DATABASE_URL is not a PostgreSQL DSN, as in ")
    assert "secret" not in said


@pytest.mark.parametrize("command", [*NEEDS_DATABASE, ("migrate",), ("dataset", "list"), ("doctor",)], ids=" ".join)
def test_a_home_that_is_not_there_is_not_made(ofp: Ofp, tmp_path: Path, command: tuple[str, ...]) -> None:
    missing = tmp_path / "typo" / "home"
    named = ofp(*command, "--home", str(missing))
    assert named.refused().startswith(f"there is no folder {missing}: ")
    assert "`ofp init`" in named.err
    outcome = ofp(*command, OFP_HOME=str(missing), OFP_DATABASE_URL="")
    assert outcome.code == 1
    assert f"there is no folder {missing}: " in outcome.shown
    assert not missing.exists()


def test_a_home_where_postgresql_cannot_live(ofp: Ofp, tmp_path: Path) -> None:
    (tmp_path / "my home").mkdir()
    said = ofp("migrate", "--home", str(tmp_path / "my home"), OFP_DATABASE_URL="").refused()
    assert "must not contain ' '. Choose another folder." in said


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "profile.yaml: No such file or directory; `ofp init` writes a profile to start from"),
        ("profile_name: [", "profile.yaml:1: not YAML: "),
        ("just text", "profile.yaml: "),
        ("{shipped}\nstreem_name: x\n", "profile.yaml: streem_name: Extra inputs are not permitted"),
        ("{shipped}", ""),
    ],
    ids=["missing", "torn", "no mapping", "typo", "well"],
)
def test_profiles(ofp: Ofp, on_plane: Ofp, tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "profile.yaml"
    shipped = (Path(sys.modules["ofp_platform.cli"].__path__[0]) / "profiles" / "demo.yaml").read_text(encoding="utf-8")
    if content is not None:
        path.write_text(content.replace("{shipped}", shipped), encoding="utf-8")
    if says:
        assert says in ofp(*STATUS, "--profile", str(path)).refused()
    else:
        assert on_plane(*STATUS, "--profile", str(path)).code == 0


def test_a_profile_value_that_cannot_be(ofp: Ofp, tmp_path: Path) -> None:
    assert ofp("init").code == 0
    path = tmp_path / "home" / "profile.yaml"
    path.write_text(path.read_text().replace("partitions: 4", "partitions: none").replace("5m", "5 minutes"))
    said = ofp(*STATUS).refused()  # the profile of the home folder is the one in use
    assert f"{path}: partitions: " in said
    assert f"{path}: clock_skew: " in said


def test_init_writes_once(ofp: Ofp, tmp_path: Path) -> None:
    path = tmp_path / "home" / "profile.yaml"
    assert ofp("init").out == f"wrote {path}\n"
    path.write_text("mine")
    assert ofp("init").refused() == f"{path} exists; edit it, or replace it with --force\n"
    assert path.read_text() == "mine"
    assert ofp("init", "--force", "--from", "handbook").code == 0
    assert Environment(home=tmp_path / "home").load_profile().profile_name == "handbook"
    assert "there are demo, handbook" in ofp("init", "--from", "nothing").refused()


def test_migrate_and_again(ofp: Ofp, empty_dsn: str) -> None:
    assert ofp("migrate", OFP_DATABASE_URL=empty_dsn).out == "the schema was brought to the newest revision\n"
    assert ofp("migrate", OFP_DATABASE_URL=empty_dsn).out == "the schema is at the newest revision\n"
    with psycopg.connect(empty_dsn) as connection:
        assert connection.execute("SELECT count(*) FROM ofp.projection").fetchone() == (0,)


@pytest.mark.parametrize(
    "command", [("serve", "--port"), ("up", "--no-dagster", "--port"), ("up", "--dagster-port")], ids=" ".join
)
def test_a_port_in_use(on_plane: Ofp, command: tuple[str, ...], tmp_path: Path) -> None:
    principals = {"OFP_PRINCIPALS": str(write_principals(tmp_path / "principals.json"))}
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        free = ("--port", "0") if command[-1] == "--dagster-port" else ()
        said = on_plane(*command, str(port), *free, **principals).refused()
    assert f"port {port}" in said
    assert f"choose another with {command[-1]}" in said


def test_nobody_is_served_without_principals(on_plane: Ofp, tmp_path: Path) -> None:
    nowhere = {"OFP_PRINCIPALS": str(tmp_path / "none.json")}
    assert "ofp principal add" in on_plane("serve", "--port", "0", **nowhere).refused()


def test_traffic_is_of_the_simulated_pack_only(on_plane: Ofp) -> None:
    said = on_plane("up", "--simulate", "1", "--profile", "handbook").refused()
    assert said == "--simulate makes events of the pack card_payments; the profile has handbook\n"


def test_a_defect_is_not_dressed_up_as_a_refusal() -> None:
    assert words_for(ZeroDivisionError("division by zero")) is None
    assert words_for(CommandRefused("no")) == "no"


def test_a_number_that_nothing_has(on_plane: Ofp) -> None:
    assert "2^63-1" in on_plane("quarantine", "show", "9" * 26).refused()
    assert on_plane("governance", "list", "--limit", "9" * 26).code == 2


def test_an_argument_that_is_no_text(ofp: Ofp) -> None:
    outcome = ofp("case", "show", "a\udcff")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.endswith("Error: Invalid value: a\\udcff is not UTF-8 text\n")


def test_a_refusal_holds_nothing_that_a_terminal_obeys(ofp: Ofp) -> None:
    said = ofp(*STATUS, "--profile", "a\x1b[2Jb.yaml").refused()
    assert said.startswith("a\\x1b[2Jb.yaml: No such file or directory")


def test_the_installed_program_refuses_in_words(tmp_path: Path) -> None:
    program = str(Path(sys.executable).with_name("ofp"))
    command = [program, "projector", "status", "--home", str(tmp_path), "--profile", str(tmp_path / "none.yaml")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"{tmp_path}/none.yaml: No such file or directory; `ofp init` writes a profile to start from\n"
    assert list(tmp_path.iterdir()) == []
