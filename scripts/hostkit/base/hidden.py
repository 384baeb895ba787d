"""A secret in memory that no output shows: text whose every spelling is [redacted]."""

from __future__ import annotations

from typing import Any

REDACTED = "[redacted]"


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
