"""TLS of the HTTP service: its certificate, and the authority that its clients' certificates must be of."""

from __future__ import annotations

import logging
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOGGER = logging.getLogger("ofp.http")


class CertificateUnusable(Exception):
    """The certificate of the service cannot be used; the text names the file."""


@dataclass(frozen=True)
class Tls:
    """Files in PEM. `client_ca`: who connects shows a certificate of this authority; None: nobody needs one."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def check(self) -> None:
        """Load all of it once.

        Raises:
            CertificateUnusable: a file is missing or broken, or certificate and key are no pair.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.key)
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
        except OSError as error:
            files = ", ".join(str(path) for path in (self.certificate, self.key, self.client_ca) if path is not None)
            raise CertificateUnusable(f"TLS cannot be had of {files}: {error.strerror or error}") from None

    def settings(self) -> dict[str, Any]:
        """As uvicorn is told."""
        files = {"ssl_certfile": str(self.certificate), "ssl_keyfile": str(self.key)}
        if self.client_ca is None:
            return files
        return files | {"ssl_ca_certs": str(self.client_ca), "ssl_cert_reqs": ssl.CERT_REQUIRED}


class CertificateWatch:
    """Loads a new certificate into a context as soon as its files are others: connections from then on get it."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._state = self._look()

    def refresh(self, context: ssl.SSLContext) -> None:
        """Look at the files. While they are no pair, as between the writing of one and of the other, the old ones stay."""
        state = self._look()
        if state == self._state or None in state:
            return
        try:
            self._tls.check()
            context.load_cert_chain(self._tls.certificate, self._tls.key)
        except (CertificateUnusable, OSError) as error:
            LOGGER.error("the certificate stays the old one: %s", error)
        self._state = state

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_state(path) for path in (self._tls.certificate, self._tls.key))


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
