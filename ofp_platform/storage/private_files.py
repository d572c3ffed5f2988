"""Folders and files that no other user of the machine may reach: made so, and looked at before they are trusted."""

from __future__ import annotations

import fcntl
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600
UMASK = 0o077
"""Takes every right from everybody else: for processes that write into a home folder."""
_RIGHTS = 0o7777


class NotPrivate(Exception):
    """A folder or a file is not ours alone; the text names it, says what is wrong with it, and what to do."""


def make_private_folder(folder: Path) -> None:
    """Make the folder, and what is missing above it, with rights for this user alone. One that is there stays as it is."""
    missing = [folder, *folder.parents]
    for path in reversed([path for path in missing if not path.exists()]):
        path.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)


def require_private_folder(folder: Path, owner: int) -> None:
    """Look at a folder, without following a link in its place.

    Raises:
        NotPrivate: it is a link or no folder, of another user than `owner` (a user id), or open to others.
    """
    status = folder.lstat()
    advice = "Look who put it there; remove it, and what is needed is made again."
    if not stat.S_ISDIR(status.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no folder"
        raise NotPrivate(f"{folder} is {kind}, where a private folder belongs. {advice}")
    if status.st_uid != owner:
        raise NotPrivate(f"{folder} belongs to {user_name(status.st_uid)}, not to {user_name(owner)}. {advice}")
    if (status.st_mode & _RIGHTS) != PRIVATE_FOLDER:
        raise NotPrivate(
            f"{folder} has mode {status.st_mode & _RIGHTS:04o}: other users may reach into it. Look at what is in it; if nothing"
            f" is strange: chmod 700 {folder}"
        )


def user_name(uid: int) -> str:
    """The name of a user, for words; an id without a name as itself."""
    try:
        return f"user {pwd.getpwuid(uid).pw_name!r}"
    except KeyError:
        return f"user id {uid}"


@contextmanager
def exclusive_file(path: Path) -> Iterator[None]:
    """One process at a time inside: the lock goes with the process, so a killed one leaves nothing behind.

    Raises:
        NotPrivate: the file is a link, or of another user, who could keep everybody out.
    """
    descriptor = open_own_file(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def open_own_file(path: Path) -> int:
    """A descriptor of a file for reading and writing, made if it is not there; the caller closes it.

    Raises:
        NotPrivate: the file is a link, or of another user.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
    except OSError as error:
        if path.is_symlink():
            raise NotPrivate(f"{path} is a symbolic link, where a file of ours belongs: remove it") from error
        raise
    if (owner := os.fstat(descriptor).st_uid) != os.geteuid():
        os.close(descriptor)
        raise NotPrivate(
            f"{path} belongs to {user_name(owner)}, not to {user_name(os.geteuid())}: run as that user, or remove it"
        )
    return descriptor


def put_private_file(folder: Path, name: str, text: str, owner: int) -> None:
    """Put a file into a folder, whole or not at all; whatever has its name is replaced, and nothing is followed or written into.

    That matters where `folder` belongs to a user of fewer rights than this process has: `owner` is that user's id, and the
    file is theirs.
    """
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    partial = f".{name}.partial"
    try:
        with suppress(FileNotFoundError):
            os.unlink(partial, dir_fd=directory)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, PRIVATE_FILE, dir_fd=directory)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if owner != os.geteuid():
                os.fchown(file.fileno(), owner, -1)
            os.fsync(file.fileno())
        os.rename(partial, name, src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        os.close(directory)


def read_beside_links(folder: Path, name: str) -> str:
    """The text of a file in a folder, which must be no link."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    finally:
        os.close(directory)
    with os.fdopen(descriptor, encoding="utf-8") as file:
        return file.read()
