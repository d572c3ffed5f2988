"""Certificates for servers of this machine, from an authority that nobody else trusts."""

from __future__ import annotations

import datetime
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ofp_platform.storage.private_files import put_private_file

_BEGIN, _END = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)


class Authority:
    """A certificate authority in memory: its own certificate, and those that it gives out. Its key goes with the process."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.root = folder / f"{name}.pem"
        ca = x509.BasicConstraints(ca=True, path_length=None)
        self.root.write_bytes(self._certificate(self._name, self._key, ca).public_bytes(serialization.Encoding.PEM))

    def give(self, name: str, *addresses: str) -> tuple[Path, Path]:
        """The files of a certificate for a name (and IP addresses) and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = [x509.DNSName(name), *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses)]
        certificate = self._certificate(subject, key, x509.SubjectAlternativeName(names))
        stem = f"{name}-of-{self.root.stem}"
        key_pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        for suffix, pem in (("crt", certificate.public_bytes(serialization.Encoding.PEM)), ("key", key_pem)):
            put_private_file(self.folder, f"{stem}.{suffix}", pem.decode("ascii"), os.geteuid())
        return self.folder / f"{stem}.crt", self.folder / f"{stem}.key"

    def _certificate(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(_BEGIN).not_valid_after(_END)
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self._key, hashes.SHA256())
