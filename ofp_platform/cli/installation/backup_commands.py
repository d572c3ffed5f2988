"""`ofp backup` and `ofp restore`: a home in one folder, and a home out of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from ofp_platform.cli.environment import Environment, resolve
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import print_facts
from ofp_platform.cli.terminal.refusals import CommandRefused

_FILES = ("profile.yaml", "principals.json")
_OBJECTS = "objects"


def backup(
    target: Annotated[Path, typer.Argument(help="The folder to make; a new one for each backup.")],
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Copy the home while it is in use: the embedded PostgreSQL, then the objects, so that none is missing that a row names."""
    from ofp_platform.storage.embedded_backup import back_up_embedded

    environment = _embedded(home)
    if target.exists():
        raise CommandRefused(f"{target} is there already: name a new folder for each backup")
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    back_up_embedded(environment.postgres_folder, partial / "postgres")
    if (environment.folder / _OBJECTS).exists():
        shutil.copytree(environment.folder / _OBJECTS, partial / _OBJECTS)
    for name in _FILES:
        if (environment.folder / name).exists():
            shutil.copy2(environment.folder / name, partial / name)
    partial.rename(target)
    print_facts({"backup": target, "home": environment.folder}, [f"{target} holds the home {environment.folder}"], as_json=json)


def restore(
    source: Annotated[Path, typer.Argument(help="A folder that `ofp backup` made.")],
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Restore a backup into a home that has no PostgreSQL yet. Objects that are there stay; missing ones are copied.

    Then compare with the archive: records that it holds and the restored log lacks are named, with how to bring them back.
    """
    from ofp_platform.log.port import StreamNotFound
    from ofp_platform.storage.embedded_backup import restore_embedded

    environment = _embedded(home, profile, makes_home=True)
    if not (source / "postgres").is_dir():
        raise CommandRefused(f"{source} is no backup: there is no folder postgres in it")
    environment.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    restore_embedded(source / "postgres", environment.postgres_folder)
    for path in sorted((source / _OBJECTS).rglob("*")):
        place = environment.folder / _OBJECTS / path.relative_to(source / _OBJECTS)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        elif not place.exists():
            _put_whole(path, place, environment.folder)
    for name in _FILES:
        if (source / name).exists() and not (environment.folder / name).exists():
            _put_whole(source / name, environment.folder / name, environment.folder)
    lines = [f"{environment.postgres_folder} is restored from {source}"]
    with environment.open_plane_without_log("owner") as plane:
        has_stream = True
        try:
            plane.settle()
        except StreamNotFound:
            has_stream = False
        live = plane.live() if has_stream else None
        if live is not None and (refusal := plane.reading_refusal(live.basis)) is not None:
            raise CommandRefused(f"what was projected does not go on from the log: {refusal}")
    lines.append("the log goes on: the archive holds nothing that it lacks" if has_stream else "there was no stream in it yet")
    print_facts({"postgres": environment.postgres_folder, "source": source, "has_stream": has_stream}, lines, as_json=json)


def _put_whole(source: Path, place: Path, folder: Path) -> None:
    """Copy a file so that it is there whole or not at all: an object that is there is never written again."""
    partial = folder / "restored-file.partial"
    shutil.copy2(source, partial)
    partial.replace(place)


def _embedded(home: Path | None, profile: str | None = None, *, makes_home: bool = False) -> Environment:
    environment = resolve(home, profile, makes_home=makes_home, needs_home=not makes_home)
    if environment.database_url is not None:
        raise CommandRefused(
            "OFP_DATABASE_URL names a server: back it up, and restore it, with its own means (see backups in docs/operating.md)"
        )
    return environment
