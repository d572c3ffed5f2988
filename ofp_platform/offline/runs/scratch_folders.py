"""The folders of unfinished builds: each is held by the process that builds in it, and removed when nobody needs it any more."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from ofp_platform.offline.runs.build_bounds import folder_bytes
from ofp_platform.offline.runs.run_ledger import RunLedger, RunOfOldForm, UnknownRun
from ofp_platform.storage.postgres import DatabaseUnavailable
from ofp_platform.vocabulary.model import is_digest
from ofp_platform.vocabulary.offline.build_run import RunState

_LOCK_SUFFIX = ".lock"
_PASSING = "parity-"
_UNKNOWN = "of no run of this ledger"


@dataclass(frozen=True)
class DeadFolder:
    """A folder that nobody needs: its name, which is the key of its run where it has one, its bytes, and why."""

    name: str
    bytes: int
    why: str


@contextmanager
def held_folder(scratch: Path, run_key: str) -> Iterator[None]:
    """Hold the folder of a run: nobody removes it meanwhile. The lock goes with the process, however that ends."""
    lock = scratch / f"{run_key}{_LOCK_SUFFIX}"
    descriptor = _locked(lock, wait=True)
    assert descriptor is not None  # it was waited for
    try:
        yield
    finally:
        if not (scratch / run_key).exists():
            lock.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def passing_folder(scratch: Path) -> Iterator[Path]:
    """An empty folder of a process's own, held; it is gone behind the context."""
    name = f"{_PASSING}{uuid.uuid4().hex}"
    with held_folder(scratch, name):
        (scratch / name).mkdir()
        try:
            yield scratch / name
        finally:
            shutil.rmtree(scratch / name, ignore_errors=True)


def _locked(path: Path, *, wait: bool) -> int | None:
    """A descriptor that holds the lock of a file; None where another process does, and is not waited for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return None
        try:
            if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # whoever held it removed the file: this lock is of a name that is gone


def remove_dead_folders(scratch: Path, ledger: RunLedger) -> None:
    """Remove what nobody needs, as far as that can be done now; folders of no run of this ledger may be another one's."""
    with suppress(psycopg.Error, DatabaseUnavailable, OSError):
        dead_folders(scratch, ledger, remove=True, unknown=False)


def dead_folders(scratch: Path, ledger: RunLedger, *, remove: bool, unknown: bool = True) -> list[DeadFolder]:
    """The folders that nobody needs, in the order of their keys; with `remove` they are gone.

    Needed are those that a process holds, and the files of a dataset that waits to be published. Without `unknown`, those of no
    run of this ledger are left alone.
    """
    keys = {path.name.removesuffix(_LOCK_SUFFIX) for path in scratch.glob("*")} if scratch.is_dir() else set()
    folders = []
    for run_key in sorted(key for key in keys if is_digest(key) or key.startswith(_PASSING)):
        lock = scratch / f"{run_key}{_LOCK_SUFFIX}"
        descriptor = _locked(lock, wait=False)
        if descriptor is None:
            continue
        try:
            folder, why = scratch / run_key, _why_dead(ledger, run_key)
            if why is None or (why == _UNKNOWN and not unknown):
                continue
            if folder.is_dir():
                folders.append(DeadFolder(run_key, folder_bytes(folder), why))
            if remove:
                shutil.rmtree(folder, ignore_errors=True)
                lock.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
    return folders


def _why_dead(ledger: RunLedger, run_key: str) -> str | None:
    """Why nobody needs the folder of a run that no process builds; None where it holds what is to be published."""
    if run_key.startswith(_PASSING):
        return "its process is gone"
    try:
        run = ledger.show(run_key)
    except UnknownRun:
        return _UNKNOWN
    except RunOfOldForm:
        return "of a run of an old form"
    if run.publish_only:
        return "published" if run.state is RunState.DONE else None
    if run.state is RunState.RUNNING:
        return "its builder is gone"
    return run.state.value if run.refusal is None else run.refusal.reason.value
