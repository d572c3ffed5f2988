"""The same world in other environments: hash seeds, time zones, locales, threads, versions of Python."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofp_platform_tests.torture.own_database import own_database

ROOT = Path(__file__).parents[3]
PEERS = ROOT / ".peers"
PLAIN = {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C.UTF-8"}
TIME_ZONES = ("Asia/Kathmandu", "America/St_Johns", "Pacific/Kiritimati", "Pacific/Apia", "Europe/Dublin", "XYZ-13:37:42")
LOCALES = ("C", "POSIX", "C.UTF-8")
MADE_LOCALES = (("de_DE", "UTF-8"), ("tr_TR", "UTF-8"), ("fa_IR", "UTF-8"), ("fr_FR", "ISO-8859-1"))
"""With a decimal comma, with the dotted and dotless i, with other digits, with an encoding that is not UTF-8."""
PYTHONS = ("3.11", "3.12", "3.13")
_SECONDS = 900  # the first run in another Python compiles the kernel
_DROPPED = ("PYTHON", "LC_", "LANG", "TZ", "PG", "NUMBA_", "OMP_")


@dataclass(frozen=True)
class Surrounding:
    """One environment. `kind`: what of it is another; `shows`: what of the process must differ then, if anything can."""

    name: str
    kind: str
    variables: Mapping[str, str]
    python: str = sys.executable
    options: tuple[str, ...] = ()
    shows: str = ""


@dataclass(frozen=True)
class Made:
    """What a process printed in an environment, or what went wrong."""

    surrounding: Surrounding
    digests: dict[str, str]
    seen: dict[str, str]
    error: str = ""


def plain() -> Surrounding:
    """What all others are held against."""
    return Surrounding("plain", "plain", {})


def surroundings(rng: random.Random, locales: Path | None, pythons: Mapping[str, str]) -> list[Surrounding]:
    """All of them. `locales`: a folder with those of MADE_LOCALES; `pythons`: version to interpreter."""
    found = []
    for seed in (1, 42, 4_294_967_295, *(rng.getrandbits(32) for _ in range(5))):
        found.append(Surrounding(f"hash seed {seed}", "hash seed", {"PYTHONHASHSEED": str(seed)}, shows="set order"))
    for zone in TIME_ZONES:
        session = zone if "/" in zone else "Africa/Monrovia"  # PostgreSQL takes an offset with seconds for one of leap seconds
        found.append(Surrounding(f"time zone {zone}", "time zone", {"TZ": zone, "PGTZ": session}, shows="local time"))
    found += [Surrounding(f"locale {name}", "locale", {"LC_ALL": name}) for name in LOCALES]
    if locales is not None:
        for language, encoding in MADE_LOCALES:
            name = f"{language}.{encoding}"
            found.append(Surrounding(f"locale {name}", "locale", {"LC_ALL": name, "LOCPATH": str(locales)}, shows="locale"))
    found.append(Surrounding("no UTF-8 mode, locale C", "locale", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}))
    for count in ("1", "2"):
        threads = {"NUMBA_NUM_THREADS": count, "OMP_NUM_THREADS": count, "OFP_TEST_WORKERS": str(3 - int(count))}
        found.append(Surrounding(f"{count} threads", "threads", threads, shows="threads" if count == "1" else ""))
    found.append(Surrounding("python -O", "python -O", {}, options=("-O",), shows="optimised"))
    session = {"PGTZ": "Asia/Tokyo", "PGDATESTYLE": "SQL, DMY", "PGOPTIONS": "-c bytea_output=escape -c extra_float_digits=0"}
    found.append(Surrounding("database session", "database session", session))
    for version, python in pythons.items():
        found.append(Surrounding(f"Python {version}", "Python version", {}, python, shows="python"))
        everything = {"PYTHONHASHSEED": "7", "TZ": "America/St_Johns", "PGTZ": "Asia/Kathmandu", "LC_ALL": "C"}
        found.append(Surrounding(f"Python {version}, all at once", "Python version", everything, python, shows="python"))
    return found


def all_at_once() -> Surrounding:
    """As much as one process can differ in without anything that has to be made first."""
    everything = {"PYTHONHASHSEED": "42", "TZ": "Asia/Kathmandu", "PGTZ": "America/St_Johns", "LC_ALL": "C"}
    threads = {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OFP_TEST_WORKERS": "1"}
    return Surrounding("all at once", "all at once", {**everything, **threads}, options=("-O",), shows="set order")


def make_in(chosen: Sequence[Surrounding], server: str, folder: Path) -> list[Made]:
    """Make the world in each, two at a time, each with a database and a folder of its own."""
    numbered = list(enumerate(chosen))
    with own_database(server) as migrated, ThreadPoolExecutor(2) as executor:
        return list(executor.map(lambda one: _make(one[1], server, migrated, folder / f"world-{one[0]}"), numbered))


def problem(made: Made, reference: Made) -> str:
    """What differs from the reference, and what should and does not; empty when the bytes are the same elsewhere."""
    if made.error:
        return made.error
    differing = [name for name in sorted(made.digests.keys() | reference.digests.keys()) if _other(name, made, reference)]
    if differing or not made.digests:
        return f"{len(differing)} digests differ, the first of {differing[:1]}"
    return ""


def took_effect(made: Made, reference: Made) -> bool:
    """Whether the process was in another environment indeed, by what the plane avoids to depend on."""
    shows = made.surrounding.shows
    return not shows or made.seen.get(shows) != reference.seen.get(shows)


def make_locales(folder: Path) -> Path | None:
    """Compile MADE_LOCALES into `folder`; None where this machine has no sources of locales."""
    program = shutil.which("localedef")
    if program is None:
        return None
    folder.mkdir()
    for language, encoding in MADE_LOCALES:
        command = [program, "--no-archive", "-i", language, "-f", encoding, str(folder / f"{language}.{encoding}")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode and not (folder / f"{language}.{encoding}" / "LC_NUMERIC").exists():
            return None
    return folder


def find_python(version: str, *, install: bool) -> tuple[str, str]:
    """An interpreter of that version with the locked packages, made under .peers/ when missing; and why there is none."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable, ""
    home = PEERS / f"python{version}"
    python = home / "bin" / "python"
    if (home / ".ready").exists():
        return str(python), ""
    if not install:
        return "", "its environment is made at full length"
    interpreter = _interpreter(version)
    if interpreter is None:
        return "", "no interpreter"
    lock = ROOT / "requirements.lock"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-input", "--no-deps", "--require-hashes", "-r", str(lock)]
    for command in ([interpreter, "-m", "venv", "--clear", str(home)], pip):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return "", f"its packages cannot be installed: {done.stderr.strip()[-200:]}"
    (home / ".ready").touch()
    return str(python), ""


def _interpreter(version: str) -> str | None:
    """A Python of that version on this machine, where people keep them."""
    candidates = [
        shutil.which(f"python{version}"),
        *map(str, sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))),
    ]
    if (uv := shutil.which("uv", path=str(Path(sys.executable).parent))) is not None:
        done = subprocess.run([uv, "python", "find", "--quiet", version], capture_output=True, text=True, check=False)
        candidates.append(done.stdout.strip() or None)
    asked = "import sys, venv; print(f'{sys.version_info.major}.{sys.version_info.minor}')"
    for candidate in filter(None, candidates):
        done = subprocess.run([candidate, "-c", asked], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip() == version:
            return candidate
    return None


def _make(surrounding: Surrounding, server: str, migrated: str, folder: Path) -> Made:
    folder.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_DROPPED)}
    environment = {**kept, **PLAIN, "PYTHONPATH": str(ROOT), **surrounding.variables}
    with own_database(server, copy_of=migrated) as dsn:
        command = [
            surrounding.python,
            *surrounding.options,
            "-m",
            "ofp_platform_tests.torture.byte_identity.world",
            dsn,
            str(folder),
        ]
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return Made(surrounding, {}, {}, f"no answer within {_SECONDS} s")
    shutil.rmtree(folder)
    if done.returncode:
        return Made(surrounding, {}, {}, done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}")
    printed: dict[str, Any] = json.loads(done.stdout)
    return Made(surrounding, printed["digests"], printed["surroundings"])


def _other(name: str, made: Made, reference: Made) -> bool:
    return made.digests.get(name) != reference.digests.get(name)
