"""An alert: one POST to the address of the environment, never with a failure of its own, never with the address in a text."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ofp_platform.orchestration.failure_alert import ADDRESS, RUNBOOK, send_alert
from ofp_platform.vocabulary.offline.governance_fact import RunFailed

FACT = RunFailed(
    run_id="run-1",
    job_name="build_dataset",
    partition="my_first.efd4b69b",
    partition_range=(None, None),
    backfill_id=None,
    assets=("offline/replay",),
    error="steps failed",
    reasons=("ARCHIVE_DAMAGED: a segment has other bytes",),
)


class _Receiver(BaseHTTPRequestHandler):
    bodies: list[bytes]
    status = 200

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Receiver]]:
    handler = type("Receiver", (_Receiver,), {"bodies": []})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv(ADDRESS, f"http://127.0.0.1:{server.server_port}/hooks/s3cret")
        yield handler
        server.shutdown()
        thread.join()


def test_the_alert_has_words_the_runbook_and_the_fact(receiver: type[_Receiver], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUNBOOK, "https://wiki.example/fraud/runbook")
    assert send_alert(FACT) is None
    (body,) = [json.loads(text) for text in receiver.bodies]
    assert body["text"].startswith("Dagster run run-1 of build_dataset (my_first.efd4b69b) failed: ARCHIVE_DAMAGED")
    assert body["text"].endswith("Runbook: https://wiki.example/fraud/runbook")
    assert body["fact"] == FACT.wire()


def test_a_receiver_that_refuses_is_told_without_its_address(receiver: type[_Receiver], monkeypatch: pytest.MonkeyPatch) -> None:
    receiver.status = 500
    assert send_alert(FACT) == "the receiver answered 500"
    for address in ("http://127.0.0.1:1/hooks/s3cret", "no address s3cret", "http://[s3cret"):
        monkeypatch.setenv(ADDRESS, address)
        failure = send_alert(FACT)
        assert failure
        assert "s3cret" not in failure


def test_nothing_is_sent_where_no_address_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS, "")
    assert send_alert(FACT) is None
