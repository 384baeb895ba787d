"""The proxy's certificate and private key where the proxy runs: what is wrong with them.

Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import ssl
import time
from pathlib import Path
from typing import Any, Mapping, Optional

NAMES = {"certificate": "tls.crt", "key": "tls.key"}  # of the copies that nginx reads
_DAY_S = 86400
_SOON_DAYS = 14
_OTHERS = 0o027  # a group may read, as Debian's ssl-cert does


def texts(files: Mapping[str, str]) -> dict[str, str]:
    """The files' contents, by the names of the copies. Raises OSError, ValueError."""
    return {NAMES[kind]: Path(path).read_text(encoding="ascii") for kind, path in files.items()}


def problem(files: Mapping[str, str]) -> Optional[str]:
    """Why nginx could not serve with them, or should not; files: certificate and key, paths."""
    for name in ("certificate", "key"):
        where = f"proxy.tls.{name}, {files[name]}"
        try:
            Path(files[name]).read_text(encoding="ascii")
        except OSError as error:
            return f"{where}: cannot be read: {error.strerror}."
        except ValueError:
            return f"{where}: it is no PEM file."
    key, certificate = Path(files["key"]), files["certificate"]
    mode = key.stat().st_mode & 0o777
    if mode & _OTHERS:
        return (
            f"proxy.tls.key, {key}: others may read or write it (mode {mode:04o})."
            f" What to do: chmod 600 {key}; where others may have read it, make a new one"
        )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            certificate, str(key), password=lambda: ""
        )
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"proxy.tls: {key} is not the key of {certificate}."
        said = error.reason or str(error)
        return (
            f"proxy.tls: {certificate} and {key} cannot be used: {said}. Wanted are PEM files, the"
            " key without a passphrase."
        )
    seconds = _left(certificate)
    if seconds <= 0:
        return f"proxy.tls.certificate, {certificate}: it expired {_days(-seconds)} ago. Renew it."
    begins = ssl.cert_time_to_seconds(_decoded(certificate)["notBefore"]) - time.time()
    if begins > 0:
        return f"proxy.tls.certificate, {certificate}: it is not valid before {_days(begins)}."
    return None


def note(files: Mapping[str, str]) -> str:
    """What is to be said of a certificate that nothing is wrong with yet; "": nothing."""
    if problem(files):  # which is told where it stands in the way
        return ""
    left = _left(files["certificate"])
    if left > _SOON_DAYS * _DAY_S:
        return ""
    return f"the proxy's certificate {files['certificate']} expires in {_days(left)}: renew it"


def _left(certificate: str) -> float:
    return ssl.cert_time_to_seconds(_decoded(certificate)["notAfter"]) - time.time()


def _decoded(certificate: str) -> dict[str, Any]:
    """The first certificate of a file. Python has no other reader of one that nobody sent it."""
    found: dict[str, Any] = ssl._ssl._test_decode_cert(certificate)  # type: ignore[attr-defined]
    return found


def _days(seconds: float) -> str:
    return f"{seconds / _DAY_S:.1f} days"
