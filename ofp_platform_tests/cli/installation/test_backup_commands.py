"""`ofp backup` and `ofp restore`, on real servers: what comes back is what was, and what does not is named."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo

from ofp_platform.cli.environment import Environment
from ofp_platform.storage.embedded import stop_embedded
from ofp_platform.storage.schema import migrate
from ofp_platform_tests.cli.program import Outcome, call
from ofp_platform_tests.oracle.simulated_log import append, deliveries, identity_link, write_profile


class Home:
    """A home with an embedded server of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = Environment(home=folder)

    def ofp(self, *arguments: str) -> Outcome:
        return call(*arguments, OFP_HOME=str(self.folder), OFP_DATABASE_URL="")

    def append(self, begin: int, end: int) -> None:
        with self.environment.open_plane("owner", create_stream=True) as plane:
            append(plane.log, deliveries().part(begin, end))

    def project(self) -> Any:
        """Apply everything; the ends of the log and what was counted."""
        with self.environment.open_plane("owner") as plane:
            row = plane.ensure_live()
            projector = plane.projector(row)
            while projector.apply_available(max_records=1_000) is not None:
                pass
            return plane.log.ends(), plane.row(row.projection_id).basis

    def lose_server(self) -> None:
        stop_embedded(self.folder / "postgres")
        shutil.rmtree(self.folder / "postgres")


@pytest.fixture
def homes() -> Iterator[list[Home]]:
    with tempfile.TemporaryDirectory(prefix="ofp-backup-") as name:
        homes = [Home(Path(name) / part) for part in ("one", "two")]
        homes[0].folder.mkdir(mode=0o700)
        write_profile(homes[0].folder)
        migrate(homes[0].environment.dsn("owner"))
        yield homes
        for home in homes:
            stop_embedded(home.folder / "postgres")


def test_what_the_archive_has_beyond_a_backup_is_named_and_comes_back(homes: list[Home], tmp_path: Path) -> None:
    home = homes[0]
    half = len(deliveries()) // 2
    home.append(0, half)
    assert home.ofp("archive", "run", "--to-head").code == 0
    home.project()
    backed_up = home.ofp("backup", str(tmp_path / "copy"))
    assert backed_up.code == 0, backed_up
    assert (tmp_path / "copy").stat().st_mode & 0o7777 == 0o700
    home.append(half, len(deliveries()))
    assert home.ofp("archive", "run", "--to-head").code == 0
    before = home.project()
    assert "there is a server in" in home.ofp("restore", str(tmp_path / "copy")).refused()
    home.lose_server()
    told = home.ofp("restore", str(tmp_path / "copy")).refused()
    assert "a recovery lost records" in told
    assert "the archive has it up to" in told
    assert home.ofp("archive", "restore").code == 0
    assert home.project() == before


def test_a_backup_makes_another_home(homes: list[Home], tmp_path: Path) -> None:
    one, two = homes
    one.append(0, 100)
    assert one.ofp("archive", "run", "--to-head").code == 0
    ends, basis = one.project()
    assert one.ofp("backup", str(tmp_path / "copy")).code == 0
    assert "is there already" in one.ofp("backup", str(tmp_path / "copy")).refused()
    outcome = two.ofp("restore", str(tmp_path / "copy"))
    assert outcome.code == 0, outcome
    assert outcome.out.endswith("the log goes on: the archive holds nothing that it lacks\n")
    assert two.project() == (ends, basis)
    assert (two.folder / "profile.yaml").read_text() == (one.folder / "profile.yaml").read_text()
    with two.environment.open_plane("owner") as plane:
        assert plane.log.is_settled()  # in another incarnation, for it is another history from here on


def append_links(home: Home, begin: int, end: int) -> Outcome:
    file = home.folder / f"links-{begin}.jsonl"
    file.write_text("".join(identity_link(number) for number in range(begin, end)))
    return home.ofp("log", "append", str(file), "--context")


def test_the_stream_of_links_comes_back_and_goes_on(homes: list[Home], tmp_path: Path) -> None:
    home = homes[0]
    write_profile(home.folder, context_stream="links")
    home.append(0, 100)
    assert append_links(home, 1, 11).code == 0
    assert home.ofp("archive", "run", "--to-head", "--context").code == 0
    assert home.ofp("backup", str(tmp_path / "copy")).code == 0
    home.lose_server()
    assert home.ofp("restore", str(tmp_path / "copy")).code == 0
    appended = append_links(home, 11, 21)  # settled: the archive holds nothing that it lacks
    assert appended.out.startswith("10 appended"), appended
    assert home.ofp("archive", "run", "--to-head", "--context").code == 0
    assert json.loads(home.ofp("identity", "catch-up", "--json").out)["links"] == 20
    home.lose_server()
    assert "a recovery lost records" in home.ofp("restore", str(tmp_path / "copy")).refused()
    assert "put back: 10 records of log links" in home.ofp("archive", "restore", "--context").out
    assert json.loads(home.ofp("identity", "catch-up", "--json").out)["links"] == 20


def test_a_damaged_backup_is_refused(homes: list[Home], tmp_path: Path) -> None:
    one, two = homes
    assert one.ofp("backup", str(tmp_path / "copy")).code == 0
    for name in ("global/pg_control", "backup_manifest"):
        file = tmp_path / "copy" / "postgres" / name
        content = file.read_bytes()
        file.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
        assert "no whole copy" in two.ofp("restore", str(tmp_path / "copy")).refused()
        file.unlink()
        assert "no whole copy" in two.ofp("restore", str(tmp_path / "copy")).refused()
        file.write_bytes(content)
    assert not (two.folder / "postgres").exists()
    assert "is no backup" in two.ofp("restore", str(tmp_path)).refused()


def test_a_restore_that_breaks_leaves_no_half_object(homes: list[Home], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = homes
    one.append(0, 100)
    assert one.ofp("archive", "run", "--to-head").code == 0
    assert one.ofp("backup", str(tmp_path / "copy")).code == 0

    def half(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:10])
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copy2", half)
        with pytest.raises(OSError, match="the disk is full"):
            two.ofp("restore", str(tmp_path / "copy"))
    assert [path for path in (two.folder / "objects").rglob("*") if path.is_file()] == []


def test_a_server_that_is_named_is_not_ours_to_copy(tmp_path: Path) -> None:
    for command in ("backup", "restore"):
        outcome = call(command, str(tmp_path / "copy"), OFP_HOME=str(tmp_path), OFP_DATABASE_URL=make_conninfo(host="db"))
        assert "with its own means" in outcome.refused()
