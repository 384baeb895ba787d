"""Which names hold secrets, and log lines without them before they leave a host. Pure."""

from __future__ import annotations

import re
from typing import Any, Callable, Match, Pattern, Union

REDACTED = "[redacted]"
_VALUE = r"(\[[^\]\n]*\]|\"[^\"\n]*\"|'[^'\n]*'|[^\s,;&)}\]\"']+)"
_NAMES = r"(?:api[-_ ]?key|access[-_]?key(?:[-_]?id)?|secret(?:[-_]?(?:access[-_]?)?key)?"
_NAMES += r"|client[-_]secret|passw(?:or)?d|passwd|passphrase|private[-_]key"
_NAMES += r"|(?:auth|access|refresh|id|api|bearer|hf|session)[-_]?token|token)"

# The one judgement of names: settings, variables, flags and keys, in any case, word by word.
_KEYS = "api|access|account|encryption|master|private|secret|signing"
_TOKENS = "access|api|auth|bearer|hf|id|refresh|session"
_SECRET_NAME = re.compile(
    rf"(?:^|[_.-])(?:pass|secrets?|token|credentials?|authorization|cookie"
    rf"|(?:{_KEYS})[_-]?keys?(?:[_-]?id)?|(?:{_TOKENS})[_-]?tokens?)$"
    r"|passw(?:or)?ds?$|passphrases?$|sshpass$|[_.-](?:pwd|auth)$|^pwd$",
    re.IGNORECASE,
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# Of tokenizers, and of counts: words of text and not of login.
_TEXT_TOKEN = re.compile(
    r"(?:audio|bos|cls|eos|first|image|mask|next|output|pad|per|prompt|sep|stop|unk|video)"
    r"[_-]token$",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")


def is_secret(name: str) -> bool:
    """Whether a setting, variable or flag of this name holds a secret."""
    bare = name.strip().lstrip("-")
    if bare == "PWD":  # the shell's working directory
        return False
    spelt = _CAMEL.sub("_", bare)
    return bool(_SECRET_NAME.search(spelt)) and not _TEXT_TOKEN.search(spelt)


def _named(found: Match[str]) -> str:
    """A name and its value; the value is taken out where the name says so."""
    begin, name, between, value = found.groups()
    counted = _NUMBER.fullmatch(value) and name.lower().endswith(("token", "pass"))
    hidden = is_secret(name) and not counted  # "time_to_first_token: 0.3", "first pass: 12"
    return f"{begin}{name}{between}{REDACTED}" if hidden else found[0]


# What is taken out: a name for people, the pattern, what stands there instead.
PATTERNS: tuple[tuple[str, Pattern[str], Union[str, Callable[[Match[str]], str]]], ...] = (
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
        'values whose name says so, like HF_TOKEN=VALUE, "db_password": VALUE, --my-token VALUE',
        re.compile(rf"(?<![\w.-])(-{{0,2}})([A-Za-z][\w.-]{{0,99}})([\"']?\s*[:=]\s*){_VALUE}"),
        _named,
    ),
    (
        "options whose name says so",
        re.compile(rf"(?<![\w.-])(--)([A-Za-z][\w.-]{{0,99}})( +)(?!--){_VALUE}"),
        _named,
    ),
    (
        "passwords in addresses",
        re.compile(r"(://[^\s/:@\"']*:)[^\s/@\"']+(?=@)"),
        rf"\1{REDACTED}",
    ),
    (
        "keys known by their form (sk-, hf_, ghp_, glpat-, AKIA, JWT)",
        # A JWT is taken out from where its word begins: each word is gone through once, however
        # often eyJ is in it.
        re.compile(
            r"\b(?:sk-[\w-]{16,}|hf_\w{16,}|gh[pousr]_\w{16,}|glpat-[\w-]{16,}|AKIA[0-9A-Z]{16})"
            r"|(?<![\w-])(?=[\w-]*?\beyJ[\w-]{10})[\w-]+\.[\w-]{10,}\.[\w-]+"
        ),
        REDACTED,
    ),
)
# A line without any of these (lower case) has nothing that a pattern would find.
_HINTS = (
    *("key", "token", "secret", "pass", "pwd", "credential", "auth", "cookie", "bearer", "@"),
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


class Hidden(str):
    """A secret read from a user's file. As text it is [redacted]; reveal gives the secret."""

    _secret: str

    def __new__(cls, secret: str) -> Hidden:
        """Hide a secret."""
        made = super().__new__(cls, REDACTED)
        made._secret = secret
        return made

    def reveal(self) -> str:
        """The secret itself, for the program that must have it. Never log it."""
        return self._secret

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hidden) and other._secret == self._secret

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(REDACTED)

    def __deepcopy__(self, _: Any) -> Hidden:
        return self

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not written anywhere")
