"""One HTTP service to ask: where it is, the key that it wants, and whose certificates it may have.

Standard library only: this module also runs on the hosts.
"""

from __future__ import annotations

import ssl
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
    ) -> Answer:
        """One request; it does not raise."""
        try:
            headers, tls = self._headers(), self._tls()
        except (OSError, ValueError) as error:
            return Answer(0, str(error), {})
        answer = health.request(
            self.url + path,
            timeout_s=timeout_s,
            body=body,
            method=method,
            headers=headers,
            tls=tls,
        )
        return Answer(answer.status, self._explained(answer), answer.headers)

    def events(self, path: str, body: Any, *, timeout_s: float) -> Iterator[str]:
        """See health.events."""
        return health.events(
            self.url + path, body, timeout_s=timeout_s, headers=self._headers(), tls=self._tls()
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
