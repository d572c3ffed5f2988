"""The real server: raw sockets that misbehave, start, refusal to start, and the end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from jsonschema import Draft202012Validator

from ofp_platform.api import examples
from ofp_platform.api.contract_files import serving_schema
from ofp_platform.api.principals import changed_principals
from ofp_platform.api.server import AddressError, address_of, reserved_port
from ofp_platform.client import OfpClient, ServiceUnreachable, verify
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform.vocabulary.serving import GetFeaturesRequest
from ofp_platform_tests.api import fake_port
from ofp_platform_tests.api.fake_port import BODY, HASH
from ofp_platform_tests.api.keys import BEARER, KEY, principal, principals_variable, write_principals

CONTRACT = Draft202012Validator(serving_schema())
PROGRAM = fake_port.__file__
ROOT = Path(PROGRAM).parents[2]
QUESTION = GetFeaturesRequest.model_validate(examples.request_example())
HOST = b"host: localhost\r\nauthorization: Bearer %s\r\n" % KEY.encode()
HEAD = b"POST /v0/get_features HTTP/1.1\r\n" + HOST + b"content-type: application/json\r\n"


def _start(*arguments: str, files: int | None = None, **environ: str) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OFP_")}
    limited = [] if files is None else ["prlimit", f"--nofile={files}:{files}"]
    return subprocess.Popen(
        [*limited, sys.executable, PROGRAM, *arguments],
        cwd=ROOT,
        env=clean | {"PYTHONPATH": str(ROOT), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def running(
    plane: str = "good", workers: int = 1, port: int = 0, files: int | None = None, **environ: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with principals_variable() as principals:
        process = _start("127.0.0.1", str(port), str(workers), plane, files=files, **(principals | environ))
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if files is not None:
                assert f"may open {files} files" in line
                line = process.stdout.readline()
            found = re.fullmatch(r"serving at (http://127\.0\.0\.1:\d+)\n", line)
            assert found, line + process.stdout.read()
            yield process, found[1]
        finally:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running() as (_, url):
        yield url


def talk(address: str, *sends: bytes, half_close: bool = False, patience: float = 10.0) -> tuple[int, bytes]:
    """Send bytes as they are; status and body of the answer, 0 when the server closed without one."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=patience) as sock:
        try:
            for data in sends:
                sock.sendall(data)
        except OSError:
            pass  # the server answered and closed before it read everything
        if half_close:
            sock.shutdown(socket.SHUT_WR)
        received = b""
        while b"\r\n\r\n" not in received:
            if not (data := sock.recv(65536)):
                return 0, received
            received += data
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
        while len(body) < length and (data := sock.recv(65536)):
            body += data
        return int(head.split()[1]), body


def _reason(body: bytes) -> str:
    error = json.loads(body)
    CONTRACT.validate(error)
    return str(error["reason"])


@pytest.mark.parametrize(
    ("sends", "half_close", "status", "reason"),
    [
        ([HEAD + b"content-length: 1\r\n\r\n{"], False, 400, "MALFORMED_JSON"),
        ([HEAD + b"\r\n"], False, 400, "MALFORMED_JSON"),
        ([HEAD + b"content-length: 100\r\n\r\n{"], True, 408, "BODY_INCOMPLETE"),
        ([HEAD + b"content-length: 100\r\n\r\n{"], False, 408, "BODY_INCOMPLETE"),
        ([HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\n{"], False, 408, "BODY_INCOMPLETE"),
        # what came before broken chunks is no body, not even where it is a whole object
        ([HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n{"], False, 408, "BODY_INCOMPLETE"),
        ([HEAD + b"transfer-encoding: chunked\r\n\r\n", b"2\r\n{}\r\nzz\r\n"], False, 408, "BODY_INCOMPLETE"),
        ([HEAD + b"content-length: 99999999\r\n\r\n", b"x" * 3_000_000], False, 413, "BODY_TOO_LARGE"),
        (
            [HEAD + b"transfer-encoding: chunked\r\n\r\n", (b"8000\r\n" + b"x" * 32768 + b"\r\n") * 3],
            False,
            413,
            "BODY_TOO_LARGE",
        ),
        ([b"GET" + HEAD[4:] + b"\r\n"], False, 405, "METHOD_NOT_ALLOWED"),
        ([b"BREW" + HEAD[4:] + b"\r\n"], False, 405, "METHOD_NOT_ALLOWED"),
        ([b"GET /%00%ff HTTP/1.1\r\nhost: localhost\r\n\r\n"], False, 404, "UNKNOWN_PATH"),
        ([b"GET /../../etc/passwd HTTP/1.1\r\nhost: localhost\r\n\r\n"], False, 404, "UNKNOWN_PATH"),
        ([b"POST /health HTTP/1.1\r\nhost: localhost\r\ncontent-length: 500000\r\n\r\n"], False, 405, "METHOD_NOT_ALLOWED"),
    ],
)
def test_clients_that_misbehave(address: str, sends: list[bytes], half_close: bool, status: int, reason: str) -> None:
    got, body = talk(address, *sends, half_close=half_close)
    assert (got, _reason(body)) == (status, reason)
    assert httpx.get(f"{address}/health", trust_env=False).status_code == 200


@pytest.mark.parametrize(
    "data",
    [
        b"GARBAGE\r\n\r\n",
        HEAD + b"content-length: abc\r\n\r\n{}",
        HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}}",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 600_000 + b"\r\n\r\n",
    ],
)
def test_what_is_not_http_ends_in_the_server_with_4xx(address: str, data: bytes) -> None:
    status, _ = talk(address, data)
    assert 400 <= status < 500


def test_pipelined_requests_are_answered_in_their_order(address: str) -> None:
    question = QUESTION.model_dump_json(exclude_none=True).encode()
    ask = HEAD + b"content-length: %d\r\n\r\n" % len(question) + question
    wrong, health = HEAD + b"content-length: 1\r\n\r\n{", b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
    last = b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    data = (ask * 12 + wrong + health + ask) * 5
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        for begin in range(0, len(data), 3_000):
            sock.sendall(data[begin : begin + 3_000])
        sock.sendall(last)
        received = b"".join(iter(lambda: sock.recv(65_536), b""))
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", received)]
    assert statuses == ([200] * 12 + [400, 200, 200]) * 5 + [404]
    assert received.count(BODY) == 13 * 5


def test_a_head_that_drips_or_never_comes_is_not_waited_for(address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    with (
        socket.create_connection((host, int(port)), timeout=20) as silent,
        socket.create_connection((host, int(port)), timeout=20) as dripping,
    ):
        dripping.sendall(HEAD)
        assert silent.recv(1) == b""
        assert dripping.recv(1) == b""


def test_a_client_that_waits_before_its_body_is_told_to_send_it(address: str) -> None:
    question = QUESTION.model_dump_json(exclude_none=True).encode()
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(HEAD + b"expect: 100-continue\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(question))
        assert sock.recv(1_000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(question)
        assert b"".join(iter(lambda: sock.recv(65_536), b"")).endswith(BODY)


def test_a_keep_alive_connection_carries_good_requests_after_a_refused_one(address: str) -> None:
    with httpx.Client(base_url=address, trust_env=False) as http:
        http.headers.update({**BEARER, "content-type": "application/json"})
        assert http.post("/v0/get_features", content=b"{").status_code == 400
        response = http.post("/v0/get_features", content=QUESTION.model_dump_json(exclude_none=True))
        assert (response.status_code, response.content) == (200, BODY)
        assert response.headers["ofp-snapshot-hash"] == HASH


def test_the_client_against_the_server(address: str) -> None:
    with OfpClient(address, token=KEY) as ofp:
        answer = ofp.ask(QUESTION)
        assert (answer.body, verify(answer)) == (BODY, HASH)
        assert ofp.get_snapshot(HASH).feature_snapshot_hash == HASH
        assert ofp.feature_groups().groups
        assert ofp.catalogue().groups[0].features
        assert ofp.explain(HASH, "sum_amount_30d", key="account:acc-000117").windows[0].events
        assert ofp.health().watermark_age_seconds == 2
        with pytest.raises(ContractError) as caught:
            ofp.get_snapshot("0" * 64)
        assert caught.value.reason is Reason.UNKNOWN_SNAPSHOT


def test_many_clients_at_once(address: str) -> None:
    def ask(number: int) -> bytes:
        with OfpClient(address, token=KEY) as ofp:
            return b"".join(ofp.ask(QUESTION).body for _ in range(20))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(16))) == {BODY * 20}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_promptly_after_the_requests_under_way(number: signal.Signals) -> None:
    with running("slow") as (process, address), OfpClient(address, token=KEY) as idle:
        idle.health()  # an idle keep-alive connection must not hold it up
        answers: list[bytes] = []

        def ask() -> None:
            with OfpClient(address, token=KEY) as ofp:
                answers.append(ofp.ask(QUESTION).body)

        asking = threading.Thread(target=ask)
        asking.start()
        deadline = time.monotonic() + 10
        while "asked" not in idle.health().reasons:
            assert time.monotonic() < deadline
        began = time.monotonic()
        process.send_signal(number)
        assert process.wait(timeout=10) == 0
        assert time.monotonic() - began < 5
        asking.join(timeout=10)
        assert answers == [BODY]
        with pytest.raises(ServiceUnreachable):
            idle.health()


def test_two_workers_answer_and_stop() -> None:
    with running(workers=2) as (process, address):
        for _ in range(6):
            with OfpClient(address, token=KEY) as ofp:
                assert ofp.ask(QUESTION).body == BODY
        process.terminate()
        assert process.wait(timeout=10) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the worker's bond to its parent is Linux's")
def test_no_worker_outlives_a_killed_server() -> None:
    with running() as (process, address):
        process.kill()
        process.wait(timeout=10)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{address}/health", trust_env=False)
            except httpx.TransportError:
                break
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{address}/health", trust_env=False)


def test_a_plane_that_cannot_start_ends_the_server_with_its_reason() -> None:
    with principals_variable() as principals:
        process = _start("127.0.0.1", "0", "1", "broken", **principals)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "the service cannot start: the store does not answer" in said
    assert "serving at" not in said


def test_a_key_is_added_and_revoked_while_it_runs(tmp_path: Path) -> None:
    path = write_principals(tmp_path / "principals.json")
    key, added = principal("added", ["features:read"])
    with running(OFP_PRINCIPALS=str(path)) as (_, address), OfpClient(address, token=key) as ofp:

        def answers() -> bool:
            try:
                return ofp.ask(QUESTION).body == BODY
            except ContractError as error:
                if error.reason is not Reason.UNAUTHENTICATED:
                    raise
                return False

        assert not answers()
        for may in (True, False):
            with changed_principals(path) as box:
                box[0] = box[0].replacing(added) if may else box[0].without("added")
            deadline = time.monotonic() + 10
            while answers() is not may:
                assert time.monotonic() < deadline


ATTACKED = [
    b"POST /v0/get_features",
    b"POST /v0/build_intents",
    b"GET /v0/feature_groups",
    b"GET /health",
    b"GET /docs",
    b"GET /metrics",
]


@pytest.mark.parametrize("line", ATTACKED)
@pytest.mark.parametrize(
    ("head", "status", "reason"),
    [
        # a name of the attacker's that was pointed at this machine
        (b"host: evil.example:8000\r\ncontent-type: application/json\r\n", 421, "FOREIGN_HOST"),
        (b"host: evil.example\r\norigin: http://evil.example\r\ncontent-type: application/json\r\n", 421, "FOREIGN_HOST"),
        (b"content-type: application/json\r\n", 421, "FOREIGN_HOST"),
        # a page of another site, also one that another program of this machine serves
        (b"host: localhost\r\norigin: https://evil.example\r\ncontent-type: application/json\r\n", 403, "FOREIGN_ORIGIN"),
        (b"host: localhost:8000\r\norigin: http://localhost:3000\r\ncontent-type: application/json\r\n", 403, "FOREIGN_ORIGIN"),
        (b"host: localhost\r\norigin: null\r\ncontent-type: application/json\r\n", 403, "FOREIGN_ORIGIN"),
        (b"host: localhost\r\nhost: evil.example\r\ncontent-type: application/json\r\n", 400, "INVALID_FIELD"),
    ],
)
def test_a_page_of_another_site_gets_nothing_even_with_a_key(
    address: str, line: bytes, head: bytes, status: int, reason: str
) -> None:
    question = QUESTION.model_dump_json(exclude_none=True).encode()
    bearer = b"authorization: Bearer %s\r\n" % KEY.encode()
    got, body = talk(address, line + b" HTTP/1.1\r\n" + bearer + head + b"content-length: %d\r\n\r\n" % len(question) + question)
    assert (got, json.loads(body)["reason"]) == (status, reason)
    assert BODY not in body


@pytest.mark.parametrize("path", [b"/v0/get_features", b"/v0/build_intents"])
@pytest.mark.parametrize("kind", [b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x", b""])
def test_a_body_that_a_form_can_send_is_not_read(address: str, path: bytes, kind: bytes) -> None:
    question = QUESTION.model_dump_json(exclude_none=True).encode()
    type_line = b"content-type: %s\r\n" % kind if kind else b""
    head = b"POST %s HTTP/1.1\r\n" % path + HOST + type_line + b"content-length: %d\r\n\r\n" % len(question)
    got, body = talk(address, head + question)
    assert (got, json.loads(body)["reason"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


def test_no_answer_lets_another_origin_read_it(address: str) -> None:
    with httpx.Client(base_url=address, trust_env=False, headers={**BEARER, "content-type": "application/json"}) as http:
        question = QUESTION.model_dump_json(exclude_none=True)
        preflight = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        for response in [
            http.post("/v0/get_features", content=question),
            http.options("/v0/get_features", headers={"origin": "https://evil.example", **preflight}),
            http.get("/v0/feature_groups"),
            http.get("/health"),
            http.get("/docs"),
            http.get("/nowhere"),
        ]:
            assert not [name for name in response.headers if name.startswith("access-control-")]
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["cross-origin-resource-policy"] == "same-origin"
            assert response.headers["x-frame-options"] == "DENY"


def test_a_port_that_is_taken_is_said_to_be(address: str) -> None:
    port = int(address.rpartition(":")[2])
    with pytest.raises(AddressError, match="is taken"), reserved_port("127.0.0.1", port):
        pass


def test_a_chosen_port_is_held() -> None:
    with reserved_port("127.0.0.1", 0) as port:
        assert port > 0
        with pytest.raises(AddressError, match="is taken"), reserved_port("127.0.0.1", port):
            pass
    with reserved_port("127.0.0.1", port) as again:
        assert again == port


def test_a_restart_on_the_same_port_with_connections_left_behind() -> None:
    port = 0
    for _ in range(2):
        with running(port=port) as (process, address), OfpClient(address, token=KEY) as idle:
            idle.health()
            process.terminate()
            assert process.wait(timeout=10) == 0
            port = int(address.rpartition(":")[2])


def test_a_port_on_which_another_program_left_connections() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as other_end:
            listener.accept()[0].close()
            assert other_end.recv(1) == b""
    with running(port=port) as (_, address), OfpClient(address, token=KEY) as ofp:
        assert ofp.ask(QUESTION).body == BODY


@contextmanager
def _crowd(address: str, count: int, data: bytes = b"", source: str = "127.0.0.9") -> Iterator[list[socket.socket]]:
    """So many open connections from one address, each of which has sent the same bytes."""
    port = int(address.rpartition(":")[2])
    with ExitStack() as stack:
        crowd = []
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10, source_address=(source, 0)))
            crowd.append(sock)
            with suppress(OSError):
                sock.sendall(data)
        yield crowd


def _ask_once(address: str, target: str = "/v0/feature_groups", source: str = "127.0.0.1") -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(local_address=source), trust_env=False) as http:
        return http.get(address + target, headers=BEARER)


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
@pytest.mark.parametrize("data", [b"", HEAD, b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n" * 400])
@pytest.mark.parametrize("files", [512, 1_024])
def test_more_connections_than_files_leave_health_and_end(data: bytes, files: int) -> None:
    with running(files=files, OFP_TEST_PLACES="8192", OFP_TEST_PLACES_OF_A_PEER="4096") as (_, address):
        with _crowd(address, files + 200, data):
            for target in ("/health", "/metrics"):
                assert _ask_once(address, target).status_code == 200
            refused = _ask_once(address, source="127.0.0.10")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert _reason(refused.content) == "OVERLOADED"
        assert httpx.get(f"{address}/health", trust_env=False).status_code == 200
        deadline = time.monotonic() + 30
        while httpx.get(f"{address}/v0/feature_groups", headers=BEARER, trust_env=False).status_code != 200:
            assert time.monotonic() < deadline


def test_one_address_may_not_take_all_places() -> None:
    with running(OFP_TEST_PLACES="40", OFP_TEST_PLACES_OF_A_PEER="20") as (_, address), _crowd(address, 60) as crowd:
        assert _ask_once(address, source="127.0.0.9").status_code == 503
        assert _ask_once(address).status_code == 200
        held = re.findall(r'ofp_http_connections\{lane="(\w+)"\} (\d+)', _ask_once(address, "/metrics").text)
        assert dict(held)["ordinary"] == "21"
        crowd[0].close()
        deadline = time.monotonic() + 10
        while _ask_once(address, source="127.0.0.9").status_code != 200:
            assert time.monotonic() < deadline


def test_too_few_files_are_said_to_be() -> None:
    process = _start("127.0.0.1", "0", "1", "good", files=200)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "this process may open 200 files" in said
    assert "ulimit -n" in said


@pytest.mark.skipif(sys.platform != "linux", reason="the children of a process are asked of Linux")
def test_a_killed_worker_is_started_again_and_told() -> None:
    with running("reporting", workers=2) as (process, address):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        before = set(children.read_text().split())
        killed = min(before)
        os.kill(int(killed), signal.SIGKILL)
        deadline = time.monotonic() + 30
        while killed in (now := set(children.read_text().split())) or len(now) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
        assert len(now & before) == 1
        for _ in range(20):
            with OfpClient(address, token=KEY) as ofp:
                assert ofp.ask(QUESTION).body == BODY
                assert [reason for reason in ofp.health().reasons if re.fullmatch(r"WORKER_[12]_ENDED:SIGKILL", reason)]
        process.terminate()
        assert process.wait(timeout=10) == 0


def test_an_address_of_another_machine() -> None:
    with pytest.raises(AddressError, match="cannot be bound"), reserved_port("192.0.2.1", 0):
        pass


def test_addresses() -> None:
    assert address_of("127.0.0.1", 80) == "http://127.0.0.1:80"
    assert address_of("0.0.0.0", 80) == "http://127.0.0.1:80"
    assert address_of("::", 80) == "http://[::1]:80"
