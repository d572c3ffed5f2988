"""A webhook receiver on the loopback, to try actions on: `python -m ofp_platform.cli.demo.webhook_receiver`.

It takes what is signed with its secret, does each message once, and answers by key whether it was done.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

from ofp_platform.actions.webhook import DONE, NOT_DONE
from ofp_platform.actions.webhook_signature import SecretFault, SignatureRefused, parse_secret, verify
from ofp_platform.cli.terminal.stop_signals import stop_on_signals

HOOK_PATH, STATUS_PATH = "/actions", "/status/"
_MOST_BODY_BYTES = 1_000_000


@dataclass
class WebhookReceiver:
    """The messages that it did, by their id. Safe to share between threads."""

    secret: bytes
    messages: dict[str, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def post(self, key: str, body: bytes) -> int:
        """Do a message, once for each key; the status of the answer."""
        with self._lock:
            self.messages.setdefault(key, orjson.loads(body))
        return 200

    def status(self, key: str) -> str:
        """Whether the message of a key was done."""
        with self._lock:
            return DONE if key in self.messages else NOT_DONE


@contextmanager
def serving(receiver: WebhookReceiver, port: int = 0) -> Iterator[str]:
    """Inside the context the receiver answers on the loopback; its address. `port`: 0 for any."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self._answer(self.path == HOOK_PATH)

        def do_GET(self) -> None:
            self._answer(self.path.startswith(STATUS_PATH))

        def _answer(self, is_known: bool) -> None:
            length = self.headers.get("content-length") or "0"
            if not length.isdecimal() or int(length) > _MOST_BODY_BYTES:
                self.close_connection = True
                self._send(413, {"error": "too large"})
                return
            body = self.rfile.read(int(length))
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                key = verify(receiver.secret, headers, body, int(time.time()))
            except SignatureRefused as refused:
                self._send(401, {"error": str(refused)})
                return
            if not is_known or (self.command == "GET" and self.path != STATUS_PATH + key):
                self._send(404, {"error": "no such path"})
            elif self.command == "GET":
                self._send(200, {"status": receiver.status(key)})
            else:
                self._send(receiver.post(key, body), {"id": key})

        def _send(self, status: int, answer: Any) -> None:
            body = orjson.dumps(answer)
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="webhook receiver")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def main() -> None:
    """Receive until SIGTERM or Ctrl-C; print the address, and each message as it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8190)
    parser.add_argument("--secret-variable", default="OFP_WEBHOOK_SECRET", help="environment variable with whsec_ and base64")
    arguments = parser.parse_args()
    try:
        receiver = WebhookReceiver(parse_secret(os.environ.get(arguments.secret_variable, "")))
    except SecretFault as fault:
        parser.error(f"{arguments.secret_variable}: {fault}")
    stop = stop_on_signals()
    with serving(receiver, arguments.port) as address:
        print(f"receiving at {address}{HOOK_PATH}", flush=True)
        stop.wait()
    print(f"{len(receiver.messages)} messages", flush=True)


if __name__ == "__main__":
    main()
