"""The object store: write-once objects in a local folder or on S3, over obstore.

There is no overwrite and no delete: an object that exists is what it was when it was created. The guard is
put-if-absent (a hard link on a local disk, `If-None-Match: *` on S3), so of two writers exactly one creates it.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, S3Store

if TYPE_CHECKING:
    from obstore.store import BackoffConfig, ClientConfig, RetryConfig, S3Config

    from ofp_platform.vocabulary.profile import Profile

ANSWER_SECONDS = 60.0
"""How long a request to S3 may take: enough for the largest file, and an end where the other side is gone without a word."""
_CONNECT_SECONDS = 5.0
_RETRIES = 4
_CONFLICT_PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds before each attempt at a conditional write that met another one under way."""
_threads_of: int | None = None
"""The process that has obstore's threads, once any does. A fork has none of them, and would wait for an answer for ever."""


class ObjectNotFound(Exception):
    """There is no object of that path."""


class ObjectStoreUnavailable(Exception):
    """The store does not answer or refuses access; the text says which store."""


class ObjectConflict(Exception):
    """An object that is written once is there with other bytes."""


class ForkedProcess(RuntimeError):
    """This process was forked from one that had used an object store, and cannot use any."""


class ObjectStore:
    """Objects by path (`/` separated, relative) under one root. Every method raises ForkedProcess where that is the case."""

    def __init__(self, url: str, *, endpoint: str | None = None, answer_seconds: float | None = None) -> None:
        """`url` is `file:///folder` (or a plain path), created if absent in a folder that is there, or `s3://bucket/prefix`.

        `endpoint` is for S3 stores other than AWS; credentials come from the usual AWS environment. A request to S3 takes at
        most `answer_seconds` (without: ANSWER_SECONDS), and no repetition of it begins later than that.

        Raises:
            ValueError: another scheme, or an S3 URL without a bucket.
            ObjectStoreUnavailable: the folder in which the store is to be is not there.
        """
        self.url = url
        parts = urlsplit(url)
        self._folder: Path | None = None
        self._store: LocalStore | S3Store
        if parts.scheme == "" or (parts.scheme == "file" and not parts.netloc):
            folder = Path(unquote(parts.path) if parts.scheme else url).expanduser().resolve()
            if not folder.parent.is_dir():
                raise ObjectStoreUnavailable(
                    f"there is no folder {folder.parent} in which objects could be kept: a home folder that nobody made (`ofp"
                    " init` makes one), a disk that is not mounted, or another mistake in object_store_url"
                )
            self._store = LocalStore(folder, mkdir=True)
            self._folder = folder
        elif parts.scheme == "s3" and parts.netloc:
            options: S3Config = {"region": os.environ.get("AWS_DEFAULT_REGION", "us-east-1")}
            if endpoint is not None:
                options |= {"endpoint": endpoint, "virtual_hosted_style_request": False}
            bound = timedelta(seconds=answer_seconds or ANSWER_SECONDS)
            client: ClientConfig = {
                "allow_http": (endpoint or "").startswith("http://"),
                "connect_timeout": min(bound, timedelta(seconds=_CONNECT_SECONDS)),
                "timeout": bound,
            }
            pauses: BackoffConfig = {
                "init_backoff": timedelta(seconds=0.1),
                "max_backoff": timedelta(seconds=2),
                "base": 2,
            }
            retries: RetryConfig = {"max_retries": _RETRIES, "retry_timeout": bound, "backoff": pauses}
            prefix = parts.path.strip("/") or None
            self._store = S3Store(parts.netloc, prefix=prefix, config=options, client_options=client, retry_config=retries)
        else:
            raise ValueError(f"{url!r} is not an object store: write file:///folder, a plain path, or s3://bucket/prefix")

    @property
    def folder(self) -> Path | None:
        """The folder in which the objects lie by their paths; None where they are not on this machine."""
        return self._folder

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Create the object, whole or not at all. True if this call created it, False only if the object is there.

        When it returns, the object survives a loss of power (as far as the disk is honest). S3 answers 409 where another
        conditional write is under way: that says nothing about the object, so it is looked for, and the write made again.

        Raises:
            ObjectStoreUnavailable: nothing is known about the object; the same call may be made again.
            ValueError: the path is not one.
        """
        for pause in _CONFLICT_PAUSES:
            time.sleep(pause)
            try:
                obstore.put(self._store, _checked(path), data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                if self.exists(path):
                    return False
                continue
            except (BaseError, OSError) as error:
                raise self._unavailable(error) from error
            if self._folder is not None:
                _sync(self._folder, path)
            return True
        raise ObjectStoreUnavailable(
            f"the object store {self.url} refused to create {path} {len(_CONFLICT_PAUSES)} times because of other writers, and"
            " it is not there: call again"
        )

    def put_same(self, path: str, data: bytes) -> bool:
        """Create the object, or hold what is there against these bytes. True if this call created it.

        Raises:
            ObjectConflict: it is there with other bytes. ObjectStoreUnavailable | ValueError: as in `put_if_absent`.
        """
        if self.put_if_absent(path, data):
            return True
        try:
            stored_bytes = self.get(path)
        except ObjectNotFound as error:
            raise ObjectStoreUnavailable(f"{path} was in {self.url} a moment ago and is not there now: call again") from error
        if stored_bytes != data:
            raise ObjectConflict(f"{path} in {self.url} holds other bytes than were to be written: see who writes there")
        return False

    def get(self, path: str) -> bytes:
        """The bytes of the object.

        Raises:
            ObjectNotFound: there is none.
            ObjectStoreUnavailable: the store does not answer.
        """
        try:
            return obstore.get(self._store, _checked(path)).bytes().to_bytes()
        except FileNotFoundError:
            raise ObjectNotFound(f"there is no object {path!r} in {self.url}") from None
        except (BaseError, OSError) as error:
            raise self._unavailable(error) from error

    def get_range(self, path: str, begin: int, length: int) -> tuple[bytes, int]:
        """`length` bytes of the object from `begin` on, and the size of the whole; no bytes where it ends before them.

        Raises:
            ObjectNotFound: there is none.
            ObjectStoreUnavailable: the store does not answer.
        """
        try:
            size = obstore.head(self._store, _checked(path))["size"]
            if size < begin + length:
                return b"", size
            return obstore.get_range(self._store, path, start=begin, length=length).to_bytes(), size
        except FileNotFoundError:
            raise ObjectNotFound(f"there is no object {path!r} in {self.url}") from None
        except (BaseError, OSError) as error:
            raise self._unavailable(error) from error

    def exists(self, path: str) -> bool:
        """Whether there is an object of that path."""
        try:
            obstore.head(self._store, _checked(path))
        except FileNotFoundError:
            return False
        except (BaseError, OSError) as error:
            raise self._unavailable(error) from error
        return True

    def folders(self, prefix: str) -> list[str]:
        """The names of the folders right below the folder `prefix`, sorted; what lies in them is not listed."""
        _own_threads()
        try:
            found = obstore.list_with_delimiter(self._store, _checked(prefix))["common_prefixes"]
        except FileNotFoundError:
            return []
        except (BaseError, OSError) as error:
            raise self._unavailable(error) from error
        return sorted(path.rpartition("/")[2] for path in found)

    def list(self, prefix: str = "") -> list[str]:
        """The paths below the folder `prefix` ("" = all), sorted. Writes under way are not shown."""
        _own_threads()
        try:
            chunks = obstore.list(self._store, _checked(prefix) if prefix else None, chunk_size=1000)
            return sorted(meta["path"] for chunk in chunks for meta in chunk)
        except FileNotFoundError:
            return []
        except (BaseError, OSError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> ObjectStoreUnavailable:
        first_line = str(error).partition("\n")[0]
        return ObjectStoreUnavailable(f"the object store {self.url} does not work: {first_line}")


def open_objects(profile: Profile, *, answer_seconds: float | None = None) -> ObjectStore:
    """Open the object store that a profile names.

    Raises:
        ObjectStoreUnavailable: it does not work.
    """
    return ObjectStore(profile.object_store_url, endpoint=profile.object_store_endpoint_url, answer_seconds=answer_seconds)


def _own_threads() -> None:
    global _threads_of
    if _threads_of is None:
        _threads_of = os.getpid()
    elif _threads_of != os.getpid():
        raise ForkedProcess(
            f"process {os.getpid()} was forked from one that had used an object store: the threads that would answer are not"
            " here. Start it anew (multiprocessing: spawn), or before the first use"
        )


def _checked(path: str) -> str:
    """One path, one object, on either store: obstore would take `/a` for `a`, and a local disk has its own ideas."""
    _own_threads()
    if any(part in ("", ".", "..") or "#" in part for part in path.split("/")) or not path.isprintable():
        raise ValueError(f"{path!r} is not an object path: relative, '/' between non-empty parts, no '.', '..' or '#'")
    return path


def _sync(root: Path, path: str) -> None:
    """Flush the file and the folders above it: the rename is atomic, but only this makes it last."""
    target = root / path
    for entry in (target, *target.parents):
        descriptor = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if entry == root:
            break
