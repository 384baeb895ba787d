"""One HTTP service to ask: where it is, the key that it wants, whose certificates it may have."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional

from hostkit.base import health
from hostkit.base.health import Answer

REFUSED = (401, 403)


@dataclass(frozen=True)
class Service:
    """url: https is verified by the file ca, else by the system's authorities.

    key_file: on hosts, where the key is. setting: what to look at when the key is refused. own: a
    service of this machine that is only asked whether it lives; it gets no secret, and its
    certificate, which may name other hosts, is not looked at.
    """

    url: str
    key: str = field(default="", repr=False)
    ca: Optional[str] = None
    setting: str = ""
    key_file: Optional[str] = None
    own: bool = False

    def request(
        self,
        path: str,
        *,
        timeout_s: float,
        body: Optional[Any] = None,
        method: Optional[str] = None,
        headers: Optional[Mapping[str, str]] = None,
    ) -> Answer:
        """One request; it does not raise. headers: besides those that the service needs."""
        try:
            sent, tls = {**(headers or {}), **self._headers()}, self._tls()
        except (OSError, ValueError) as error:
            return Answer(0, str(error), {})
        answer = health.request(
            self.url + path,
            timeout_s=timeout_s,
            body=body,
            method=method,
            headers=sent,
            tls=tls,
        )
        return Answer(answer.status, self._explained(answer), answer.headers)

    def events(
        self,
        path: str,
        body: Any,
        *,
        timeout_s: float,
        headers: Optional[Mapping[str, str]] = None,
    ) -> Iterator[str]:
        """See health.events, and request."""
        sent = {**(headers or {}), **self._headers()}
        return health.events(
            self.url + path, body, timeout_s=timeout_s, headers=sent, tls=self._tls()
        )

    def _explained(self, answer: Answer) -> str:
        """What a refused key or certificate comes from, before what was answered."""
        if answer.status in REFUSED:
            sent = (
                "the key that we sent is not known there" if self._headers() else "it wants a key"
            )
            return f"{sent} (setting {self.setting}): {answer.text}"
        if answer.status == 0 and "CERTIFICATE_VERIFY_FAILED" in answer.text:
            return f"{answer.text} (settings proxy.tls.ca, proxy.tls.name)"
        return answer.text

    def _headers(self) -> Mapping[str, str]:
        key = self.key
        if self.key_file is not None:
            key = Path(self.key_file).read_text(encoding="utf-8").strip()
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _tls(self) -> Optional[ssl.SSLContext]:
        if not self.url.startswith("https:"):
            return None
        made = ssl.create_default_context(cafile=self.ca)
        # Private authorities often lack what Python 3.13 began to ask for; older ones take them.
        made.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self.own:
            made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
        return made


def of_spec(spec: Mapping[str, Any]) -> Service:
    """A server as host.json has it, asked from its own host."""
    return Service(
        spec["url"],
        setting="proxy.internal_key",
        key_file=spec.get("key_file"),
        own=spec["url"].startswith("https:"),
    )


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
