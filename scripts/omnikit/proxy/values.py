"""Settings on their way into a proxy's configuration file: checked, quoted, or refused.

nginx reads one text for structure and values alike, so a value with a ";" or "$" would become
configuration. Everything that reaches the file goes through one of these functions. What a single
setting may be stands in the schema; here is what the plan and a launcher's options make of them.
"""

from __future__ import annotations

import ipaddress
import re
from functools import cache
from typing import TYPE_CHECKING, Any, Mapping, Sequence, get_type_hints

from hostkit.base.errors import InputError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_SECONDS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def refused(where: str, value: object, expected: str) -> InputError:
    """The error for a value that does not fit."""
    return InputError(
        f"{value!r} is no {expected}.", where=where, todo=f"give {where} as {expected}"
    )


def wanted(settings: Mapping[str, Any], key: str) -> Any:
    """A setting that must be there."""
    if settings.get(key) is None:
        raise InputError("the setting is missing.", where=f"proxy.{key}", todo=f"set proxy.{key}")
    return settings[key]


def host(where: str, value: object) -> str:
    """A host name or address as it stands in an address (IPv6 in brackets)."""
    text = value if isinstance(value, str) else ""
    try:
        address = ipaddress.ip_address(text)
        if "%" not in text:
            return f"[{address}]" if address.version == 6 else str(address)
    except ValueError:
        if _HOST_NAME.fullmatch(text):
            return text
    raise refused(where, value, "host name or IP address")


def is_every_address(value: str) -> bool:
    """Whether it means all addresses of a machine rather than one that others could ask."""
    try:
        return ipaddress.ip_address(value).is_unspecified
    except ValueError:
        return False


def setting(settings: Mapping[str, Any], key: str) -> Any:
    """A setting of the section "proxy", as the schema allows it: options of a launcher replace
    some. Raises InputError.
    """
    from pydantic import ValidationError  # late: hosts need no packages to start a rendered proxy

    from omnikit.config.config import wanted_instead

    value = settings.get(key)
    try:
        return _type(key).validate_python(value, strict=True)
    except ValidationError as error:
        expected = " or ".join(map(wanted_instead, error.errors(include_url=False)))
        raise InputError(
            f"found {value!r}, expected {expected}.",
            where=f"proxy.{key}",
            todo=f"give proxy.{key} so, or leave it out",
        ) from error


@cache
def _type(key: str) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    from omnikit.config.schema import Proxy

    return TypeAdapter(get_type_hints(Proxy, include_extras=True)[key])


def network(text: str) -> str:
    """An address or a network in the notation of nginx's allow."""
    found = ipaddress.ip_network(text, strict=False)
    return str(found.network_address) if found.num_addresses == 1 else str(found)


def number(where: str, value: object, low: int, high: int) -> int:
    """A whole number within bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise refused(where, value, f"whole number from {low} to {high}")
    return value


def address(where: str, pair: tuple[str, int]) -> str:
    """host:port."""
    return f"{host(where, pair[0])}:{number(where, pair[1], 1, 65535)}"


def one_of(where: str, value: object, choices: Sequence[str]) -> str:
    """One of a few words."""
    if isinstance(value, str) and value in choices:
        return value
    raise refused(where, value, f"one of {', '.join(choices)}")


def size_bytes(text: str) -> int:
    """A size in nginx's notation as a number."""
    digits, unit = re.sub(r"\D", "", text), re.sub(r"\d", "", text)
    return int(digits) * _UNITS[unit.lower()]


def milliseconds(text: str) -> int:
    """A time span in nginx's notation as milliseconds, at least one."""
    parts = re.findall(r"([0-9]+)(ms|[smhdw]?)", text)
    return max(1, round(sum(int(count) * _SECONDS[unit] * 1000 for count, unit in parts)))


def seconds(text: str) -> int:
    """A time span in nginx's notation as whole seconds, at least one."""
    return max(1, milliseconds(text) // 1000)


def path(where: str, value: object) -> str:
    """An absolute path that no configuration language mistakes for anything else.

    "$" has no escape in nginx.conf; quotes and backslashes have, but nothing good is called so.
    """
    text = value if isinstance(value, str) else ""
    if text.startswith("/") and text.isprintable() and not set(text) & set("$\"'\\"):
        return text
    raise refused(
        where, value, "absolute path without quotes, backslashes, $ or control characters"
    )


def comment(text: str) -> str:
    """Text that stays on its line."""
    return "".join(c if c.isprintable() else " " for c in text)
