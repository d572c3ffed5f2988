"""TLS in front of a server that was built without: what a client of PostgreSQL sees is a server with `ssl = on`."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

_SSL_REQUEST, _GSS_REQUEST = 80877103, 80877104


@dataclass
class TlsFront:
    """The port of the front, and how many sessions were encrypted and how many asked for none."""

    port: int
    encrypted: int = 0
    plain: int = 0
    threads: list[threading.Thread] = field(default_factory=list)


@contextmanager
def tls_front(server: Path | tuple[str, int], certificate: tuple[Path, Path], clients: Path | None = None) -> Iterator[TlsFront]:
    """Relay from a port of the loopback to a server: its Unix socket, or its host and port.

    `clients`: the root of the certificates that clients must show.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    if clients is not None:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listener:
        front = TlsFront(listener.getsockname()[1])

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    thread = threading.Thread(target=_serve, args=(front, connection, context, server), daemon=True)
                    thread.start()
                    front.threads[:] = [*(other for other in front.threads if other.is_alive()), thread]

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield front
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for thread in front.threads:
                thread.join(30)


def _serve(front: TlsFront, connection: socket.socket, context: ssl.SSLContext, place: Path | tuple[str, int]) -> None:
    with connection, suppress(OSError, struct.error):
        head = connection.recv(8, socket.MSG_WAITALL)
        code = struct.unpack("!ii", head)[1]
        if code == _GSS_REQUEST:
            connection.sendall(b"N")
            head = connection.recv(8, socket.MSG_WAITALL)
            code = struct.unpack("!ii", head)[1]
        if code != _SSL_REQUEST:
            front.plain += 1
            return
        connection.sendall(b"S")
        family = socket.AF_UNIX if isinstance(place, Path) else socket.AF_INET
        with context.wrap_socket(connection, server_side=True) as client, socket.socket(family) as server:
            # a client certificate that is missing shows at the first read
            first = client.recv(65536)
            front.encrypted += 1
            server.connect(str(place) if isinstance(place, Path) else place)
            server.sendall(first)
            back = threading.Thread(target=_relay, args=(server, client), daemon=True)
            back.start()
            _relay(client, server)
            back.join()


def _relay(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
