"""One suite for both object stores: the local folder, and S3 on a moto server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest

from ofp_platform.storage.objects import ObjectConflict, ObjectNotFound, ObjectStore, ObjectStoreUnavailable


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "local":
        return ObjectStore(f"file://{tmp_path}/objects%20here")
    endpoint = request.getfixturevalue("moto_server")
    bucket = f"bucket-{uuid.uuid4().hex}"
    with closing(boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")) as client:
        client.create_bucket(Bucket=bucket)
    return ObjectStore(f"s3://{bucket}/some/prefix", endpoint=endpoint)


def test_created_once(store: ObjectStore) -> None:
    assert not store.exists("a/b.json")
    assert store.put_if_absent("a/b.json", b"first")
    assert not store.put_if_absent("a/b.json", b"second")
    assert store.get("a/b.json") == b"first"
    assert store.exists("a/b.json")


def test_large_and_empty_objects(store: ObjectStore) -> None:
    data = os.urandom(12_000_000)
    assert store.put_if_absent("large", data)
    assert not store.put_if_absent("large", b"")
    assert store.get("large") == data
    assert store.put_if_absent("empty", b"")
    assert store.get("empty") == b""


def test_of_many_writers_one_wins(store: ObjectStore) -> None:
    bodies = [f"writer {n}".encode() * 1000 for n in range(8)]
    with ThreadPoolExecutor(8) as executor:
        created = list(executor.map(lambda body: store.put_if_absent("contended", body), bodies))
    assert created.count(True) == 1
    assert store.get("contended") == bodies[created.index(True)]


def test_list_is_by_folder_and_sorted(store: ObjectStore) -> None:
    for path in ("b/2", "b/1", "b/c/3", "bb/4", "a"):
        store.put_if_absent(path, b"x")
    assert store.list() == ["a", "b/1", "b/2", "b/c/3", "bb/4"]
    assert store.list("b") == ["b/1", "b/2", "b/c/3"]
    assert store.list("none") == []
    assert store.folders("b") == ["c"]
    assert store.folders("none") == []


def test_absent_objects(store: ObjectStore) -> None:
    with pytest.raises(ObjectNotFound, match="nothing"):
        store.get("nothing")


@pytest.mark.parametrize("path", ["/a", "a//b", "../a", "a/./b", "a/", "", "a#1", "a\nb"])
def test_what_is_not_a_path(store: ObjectStore, path: str) -> None:
    with pytest.raises(ValueError, match="not an object path"):
        store.put_if_absent(path, b"x")


def test_a_local_write_under_way_is_not_an_object(tmp_path: Path) -> None:
    store = ObjectStore(str(tmp_path))
    store.put_if_absent("a/b", b"x")
    (tmp_path / "a" / "c#1").write_bytes(b"half of it")
    assert store.list() == ["a/b"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["b", "c#1"]


def test_a_store_that_does_not_answer(moto_server: str, tmp_path: Path) -> None:
    missing = ObjectStore("s3://no-such-bucket", endpoint=moto_server)
    with pytest.raises(ObjectStoreUnavailable, match="s3://no-such-bucket"):
        missing.put_if_absent("a", b"x")
    local = ObjectStore(str(tmp_path / "objects"))
    (tmp_path / "objects" / "a").write_text("a file where a folder should be")
    with pytest.raises(ObjectStoreUnavailable, match="objects"):
        local.put_if_absent("a/b", b"x")


@pytest.mark.parametrize("url", ["ftp://host/x", "s3://", "file://relative/x"])
def test_what_is_not_a_store(url: str) -> None:
    with pytest.raises(ValueError, match="not an object store"):
        ObjectStore(url)


def test_a_store_that_is_silent_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ACCESS_KEY_ID", "testing")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
            store = ObjectStore("s3://bucket", endpoint=endpoint, answer_seconds=0.2)
        with pytest.raises(ObjectStoreUnavailable, match="s3://bucket"):
            store.get("a")


@contextmanager
def s3_with_conflicts(conflicts: int, *, other_writer: bytes | None = None) -> Iterator[tuple[ObjectStore, dict[str, bytes]]]:
    """A store that answers the first conditional writes as S3 does while another is under way: 409, nothing written.

    The other writer's object is there after them, if it has one.
    """
    objects: dict[str, bytes] = {}
    answers = ["409"] * conflicts

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status: int, body: bytes = b"") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"1"')
            self.send_header("Last-Modified", "Sat, 01 Jun 2024 00:00:00 GMT")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["If-None-Match"] == "*"
            if answers:
                answers.pop()
                if not answers and other_writer is not None:
                    objects[self.path] = other_writer
                self.answer(409, b"<Error><Code>ConditionalRequestConflict</Code></Error>")
            elif self.path in objects:
                self.answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            else:
                objects[self.path] = body
                self.answer(200)

        def do_GET(self) -> None:
            self.answer(200 if self.path in objects else 404, objects.get(self.path, b""))

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ACCESS_KEY_ID", "testing")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
            yield ObjectStore("s3://bucket", endpoint=f"http://127.0.0.1:{server.server_port}"), objects
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_conflict_with_another_write_is_not_an_object() -> None:
    with s3_with_conflicts(2) as (store, objects):
        assert store.put_if_absent("a", b"ours")
        assert objects == {"/bucket/a": b"ours"}


def test_a_conflict_that_left_an_object() -> None:
    with s3_with_conflicts(1, other_writer=b"theirs") as (store, objects):
        assert not store.put_if_absent("a", b"ours")
        assert objects == {"/bucket/a": b"theirs"}
    with s3_with_conflicts(1, other_writer=b"theirs") as (store, _), pytest.raises(ObjectConflict, match="a in s3://bucket"):
        store.put_same("a", b"ours")


def test_conflicts_without_end_are_told_as_an_outage() -> None:
    with s3_with_conflicts(1_000) as (store, objects):
        with pytest.raises(ObjectStoreUnavailable, match="refused to create a 6 times"):
            store.put_if_absent("a", b"ours")
        assert objects == {}


def test_the_same_object_again(store: ObjectStore) -> None:
    assert store.put_same("a", b"x")
    assert not store.put_same("a", b"x")
    with pytest.raises(ObjectConflict, match="holds other bytes"):
        store.put_same("a", b"y")
    assert store.get("a") == b"x"


FORKED = """
import os, sys
from ofp_platform.storage.objects import ForkedProcess, ObjectStore
store = ObjectStore(sys.argv[1])
before = os.fork()
if before == 0:
    os._exit(0 if store.put_if_absent("before", b"x") else 1)  # nothing was used yet
assert os.waitstatus_to_exitcode(os.waitpid(before, 0)[1]) == 0
assert store.put_if_absent("a", b"x")
behind = os.fork()
if behind == 0:
    found = 0
    for action in (lambda: store.put_if_absent("b", b"x"), lambda: ObjectStore(sys.argv[1]).get("a"), store.list):
        try:
            action()
        except ForkedProcess as error:
            found += "multiprocessing: spawn" in str(error)
    os._exit(found)
assert os.waitstatus_to_exitcode(os.waitpid(behind, 0)[1]) == 3
assert store.list() == ["a", "before"]
"""


def test_a_fork_is_told_instead_of_waiting_for_ever(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORKED, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stderr == ""


def test_a_folder_is_made_in_one_that_is_there_and_nowhere_else(tmp_path: Path) -> None:
    with pytest.raises(ObjectStoreUnavailable, match=r"there is no folder .*unmounted"):
        ObjectStore(f"file://{tmp_path}/unmounted/objects")
    assert not (tmp_path / "unmounted").exists()
    assert ObjectStore(f"file://{tmp_path}/objects").list("") == []
