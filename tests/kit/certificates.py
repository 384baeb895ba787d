"""A private certificate authority and certificates of it, made on the spot for tests."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(key: Any) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class Authority:
    """file: its own certificate, by which those that it made are verified."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = _name("a private authority")
        self.file = folder / "ca.pem"
        made = self._certificate(self.name, self.key, 0, 3650, x509.BasicConstraints(True, None))
        self.file.write_bytes(made)

    def _certificate(
        self, name: x509.Name, key: Any, begins: int, days: int, *extensions: Any
    ) -> bytes:
        begin = datetime.datetime.now(datetime.timezone.utc) + begins * _DAY
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin - _DAY / 24)
            .not_valid_after(begin + days * _DAY)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def make(
        self, address: str = "127.0.0.1", *, days: int = 90, begins: int = 0
    ) -> dict[str, str]:
        """proxy.tls for a proxy at an address: files of a certificate, its key, the authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.IPAddress(ipaddress.ip_address(address)), x509.DNSName("localhost")]
        made = self._certificate(
            _name("proxy"), key, begins, days, x509.SubjectAlternativeName(names)
        )
        files = {"certificate": self.folder / "proxy.crt", "key": self.folder / "proxy.key"}
        files["certificate"].write_bytes(made)
        files["key"].touch(mode=0o600)
        files["key"].write_bytes(_pem(key))
        return {**{name: str(path) for name, path in files.items()}, "ca": str(self.file)}
