"""Certificates of one run, rates, and the pins of what is shipped."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from hostkit.base.errors import InputError
from omnikit.spread import wheel
from omnikit.spread.transfer import Authority, number


def test_a_host_is_known_by_this_run_alone(tmp_path: Path) -> None:
    one, other = Authority(), Authority()
    certificate, key = one.peer("h0")
    made = x509.load_pem_x509_certificate(certificate.encode())
    made.verify_directly_issued_by(x509.load_pem_x509_certificate(one.certificate.encode()))
    with pytest.raises((ValueError, InvalidSignature)):
        made.verify_directly_issued_by(x509.load_pem_x509_certificate(other.certificate.encode()))
    file = tmp_path / "both.pem"
    file.write_text(key + certificate)
    ssl.create_default_context().load_cert_chain(file)


def test_sizes_are_bytes() -> None:
    assert [number(one) for one in (None, "0", "7", "2k", "200M", "1g")] == [
        *(0, 0, 7, 2048, 200 << 20, 1 << 30)
    ]


def test_a_wheel_that_was_changed_is_refused(tmp_path: Path) -> None:
    version = wheel.PINS.read_text().partition("==")[2].split()[0]
    name = f"libtorrent-{version}-cp39-cp39-manylinux_2_17_s390x.whl"
    (tmp_path / name).write_bytes(b"not it")
    with pytest.raises(InputError, match="no wheel of libtorrent"):
        wheel.of("cp39-s390x", str(tmp_path))
    name = f"libtorrent-{version}-cp39-cp39-manylinux2014_aarch64.whl"
    (tmp_path / name).write_bytes(b"not it")
    with pytest.raises(InputError, match="not the wheel"):
        wheel.of("cp39-aarch64", str(tmp_path))
