"""Take secrets out of log lines before they leave a host. Pure.

Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import re
from typing import Pattern

REDACTED = "[redacted]"
_VALUE = r"(\[[^\]\n]*\]|\"[^\"\n]*\"|'[^'\n]*'|[^\s,;&)}\]\"']+)"
_NAMES = r"(?:api[-_ ]?key|access[-_]?key(?:[-_]?id)?|secret(?:[-_]?(?:access[-_]?)?key)?"
_NAMES += r"|client[-_]secret|passw(?:or)?d|passwd|passphrase|private[-_]key"
_NAMES += r"|(?:auth|access|refresh|id|api|bearer|hf|session)[-_]?token|token)"

# What is taken out: a name for people, the pattern, what stands there instead.
PATTERNS: tuple[tuple[str, Pattern[str], str], ...] = (
    (
        "Authorization and Cookie headers",
        re.compile(
            r"((?:proxy-)?authorization|(?:set-)?cookie|x-api-key)"
            r"([\"']?\s*[:=,]\s*[\"']?)(?:(?:bearer|basic|token|digest)\s+)?[^\s\"',}]+",
            re.IGNORECASE,
        ),
        rf"\1\2{REDACTED}",
    ),
    ("bearer tokens", re.compile(r"\b(bearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1{REDACTED}"),
    (
        "options like --api-key VALUE",
        re.compile(rf"(--{_NAMES}[ =])(?!--){_VALUE}", re.IGNORECASE),
        rf"\1{REDACTED}",
    ),
    (
        "settings like password=VALUE, 'api_key': VALUE",
        re.compile(rf"(?<![\w-])({_NAMES}[\"']?\s*[:=]\s*){_VALUE}", re.IGNORECASE),
        rf"\1{REDACTED}",
    ),
    (
        "variables like HF_TOKEN=VALUE",
        re.compile(
            r"\b([A-Z][A-Z0-9_]*_(?:TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|PRIVATE_KEY)"
            rf"[\"']?\s*[:=]\s*){_VALUE}"
        ),
        rf"\1{REDACTED}",
    ),
    (
        "passwords in addresses",
        re.compile(r"(://[^\s/:@\"']*:)[^\s/@\"']+(?=@)"),
        rf"\1{REDACTED}",
    ),
    (
        "keys known by their form (sk-, hf_, ghp_, glpat-, AKIA, JWT)",
        re.compile(
            r"\b(?:sk-[\w-]{16,}|hf_\w{16,}|gh[pousr]_\w{16,}|glpat-[\w-]{16,}|AKIA[0-9A-Z]{16}"
            r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+)"
        ),
        REDACTED,
    ),
)
# A line without any of these (lower case) has nothing that a pattern would find.
_HINTS = (
    *("key", "token", "secret", "passw", "passphrase", "auth", "cookie", "bearer", "@"),
    *("sk-", "hf_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "glpat-", "akia", "eyj"),
)
_KEY_BEGINS = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")
_KEY_ENDS = re.compile(r"-----END [A-Z0-9 ]*PRIVATE KEY-----")


class Redactor:
    """Goes through the lines of one file in order; count: lines that were changed."""

    def __init__(self) -> None:
        self.count = 0
        self._in_key = False

    def line(self, text: str) -> str:
        """The line without its secrets. Lines of a private key become one mark each."""
        if self._in_key:
            self._in_key = not _KEY_ENDS.search(text)
            self.count += 1
            return REDACTED + text[len(text.rstrip("\r\n")) :]
        lowered = text.lower()
        if not any(hint in lowered for hint in _HINTS):
            return text
        done = text
        if _KEY_BEGINS.search(done):
            self._in_key = not _KEY_ENDS.search(done)
            head = _KEY_BEGINS.split(done)[0]
            done = head + REDACTED + text[len(text.rstrip("\r\n")) :]
        for _, pattern, instead in PATTERNS:
            done = pattern.sub(instead, done)
        self.count += done != text
        return done


def names() -> list[str]:
    """What is taken out, in words."""
    return [*(name for name, _, _ in PATTERNS), "private keys (PEM)"]
