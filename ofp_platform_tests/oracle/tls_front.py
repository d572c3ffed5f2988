"""TLS in front of a server that was built without: what a client of PostgreSQL sees is a server with `ssl = on`."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_SSL_REQUEST, _GSS_REQUEST = 80877103, 80877104
_BEGIN, _END = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)


class Authority:
    """A certificate authority of a test: its own certificate, and those that it gives out."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.root = folder / f"{name}.pem"
        ca = x509.BasicConstraints(ca=True, path_length=None)
        self.root.write_bytes(self._signed(self._name, self._key, ca).public_bytes(serialization.Encoding.PEM))

    def give(self, name: str, *addresses: str) -> tuple[Path, Path]:
        """The files of a certificate for a name (and IP addresses) and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = [x509.DNSName(name), *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses)]
        certificate = self._signed(subject, key, x509.SubjectAlternativeName(names))
        files = self.folder / f"{name}-of-{self.root.stem}.crt", self.folder / f"{name}-of-{self.root.stem}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        files[1].chmod(0o600)
        return files

    def _signed(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType) -> x509.Certificate:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(_BEGIN).not_valid_after(_END)
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self._key, hashes.SHA256())


@dataclass
class TlsFront:
    """The port of the front, and how many sessions were encrypted and how many asked for none."""

    port: int
    encrypted: int = 0
    plain: int = 0
    threads: list[threading.Thread] = field(default_factory=list)


@contextmanager
def tls_front(socket_path: Path, certificate: tuple[Path, Path], clients: Path | None = None) -> Iterator[TlsFront]:
    """Relay from a port of the loopback to a server's socket; `clients`: the root of the certificates that clients must show."""
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
                    thread = threading.Thread(target=_serve, args=(front, connection, context, socket_path), daemon=True)
                    thread.start()
                    front.threads.append(thread)

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield front
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for thread in front.threads:
                thread.join(30)


def _serve(front: TlsFront, connection: socket.socket, context: ssl.SSLContext, path: Path) -> None:
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
        with context.wrap_socket(connection, server_side=True) as client, socket.socket(socket.AF_UNIX) as server:
            # a client certificate that is missing shows at the first read
            first = client.recv(65536)
            front.encrypted += 1
            server.connect(str(path))
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
