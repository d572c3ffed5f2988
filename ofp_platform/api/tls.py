"""TLS of the HTTP service: its certificate, the authority that its clients' certificates must be of, and whom those name."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

LOGGER = logging.getLogger("ofp.http")


class CertificateUnusable(Exception):
    """The certificate of the service cannot be used; the text names the file."""


@dataclass(frozen=True)
class Tls:
    """Files in PEM. `client_ca`: who connects shows a certificate of this authority; None: nobody needs one."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """All of it, loaded; TLS 1.2 at least.

        Raises:
            CertificateUnusable: a file is missing or broken, or certificate and key are no pair.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key)
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except OSError as error:
            files = ", ".join(str(path) for path in (self.certificate, self.key, self.client_ca) if path is not None)
            raise CertificateUnusable(f"TLS cannot be had of {files}: {error.strerror or error}") from None
        return context


class ClientCertificate(NamedTuple):
    """A verified certificate of a client: its names, as `DNS:scorer.bank`, `URI:spiffe://...` or `CN:scorer`, and its end in
    seconds since 1970."""

    names: tuple[str, ...]
    until: float

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> ClientCertificate:
        """As `ssl` gives one. A common name counts where there is one alone."""
        names = [f"{kind}:{name}" for kind, name in content.get("subjectAltName", ()) if kind in ("DNS", "URI")]
        common_names = [value for part in content.get("subject", ()) for name, value in part if name == "commonName"]
        if len(common_names) == 1:
            names.append(f"CN:{common_names[0]}")
        return cls(tuple(names), ssl.cert_time_to_seconds(content["notAfter"]))


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
            self._tls.context()
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
