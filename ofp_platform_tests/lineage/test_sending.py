"""An event goes to a file or to a collector, or it is said why not."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import patch

import orjson
import pytest

from ofp_platform.cli.files.lineage_destination import KEY_VARIABLE, demand_open_lineage, tell_lineage
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.lineage import sending
from ofp_platform.lineage.open_lineage import dataset_event
from ofp_platform.lineage.sending import LineageNotTaken, event_text, send
from ofp_platform_tests.oracle.manifests import a_manifest

EVENT = dataset_event(a_manifest(), "s3://bucket", "2026-02-01T00:00:00Z")


@contextmanager
def collector(status: int) -> Iterator[tuple[str, list[tuple[str, str | None, bytes]]]]:
    """A collector that answers so, and what it was sent: path, authorization, body."""
    requests: list[tuple[str, str | None, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            requests.append((self.path, self.headers["authorization"], body))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requests
        finally:
            server.shutdown()
            thread.join()


def test_a_file_has_a_line_for_each_event(tmp_path: Path) -> None:
    path = tmp_path / "lineage.ndjson"
    send(EVENT, str(path))
    send(EVENT, str(path))
    assert path.read_text(encoding="utf-8").splitlines() == [event_text(EVENT)] * 2


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(LineageNotTaken, match="Is a directory"):
        send(EVENT, str(tmp_path))


@pytest.mark.parametrize(("key", "authorization"), [(None, None), ("k-1", "Bearer k-1")])
def test_a_collector_gets_the_event(key: str | None, authorization: str | None) -> None:
    with collector(201) as (url, requests):
        send(EVENT, url, key)
    ((path, given, body),) = requests
    assert (path, given) == ("/api/v1/lineage", authorization)
    assert orjson.loads(body) == orjson.loads(event_text(EVENT))


def test_a_collector_that_refuses_or_is_not_there_is_told() -> None:
    with collector(400) as (url, _), pytest.raises(LineageNotTaken, match="answered 400"):
        send(EVENT, url)
    with patch.object(sending, "RETRIES", {"total": 0}), pytest.raises(LineageNotTaken, match="does not answer"):
        send(EVENT, url)


def test_the_command_prints_what_it_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "k-2")
    tell_lineage(lambda: EVENT, str(tmp_path / "file"), as_json=True)
    assert orjson.loads(capsys.readouterr().out) == orjson.loads(event_text(EVENT))
    with collector(201) as (url, requests):
        tell_lineage(lambda: EVENT, url, as_json=False)
    assert requests[0][1] == "Bearer k-2"
    assert f"told {url}: build/" in capsys.readouterr().out
    with pytest.raises(CommandRefused, match="Is a directory"):
        tell_lineage(lambda: EVENT, str(tmp_path), as_json=False)


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    demand_open_lineage()
    monkeypatch.setitem(sys.modules, "openlineage.client", None)
    with pytest.raises(CommandRefused, match=r"ofp-platform\[openlineage\]"):
        demand_open_lineage()
