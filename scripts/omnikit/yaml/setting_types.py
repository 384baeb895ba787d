"""Types of single settings: what a value may be, and how an error message says it."""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Annotated, Any, Callable, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from hostkit.base.values import parsed, whole

# Patterns, each with what it allows in words: the words stand in error messages.
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
_NODE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
_ADDRESS = r"^[A-Za-z0-9:][A-Za-z0-9._:-]{0,253}$"
_SIZE = r"^[0-9]{1,12}[kKmMgG]?$"
_TIME = r"^[0-9]{1,9}(ms|s|m|h)$"
_BUFFERS = r"^[1-9][0-9]{0,5} [1-9][0-9]{0,8}[kKmM]?$"
_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
_FLAG = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
_URL = r"^(https?|file)://[^\s]+$"
_WEB_ADDRESS = r"^https?://[^\s@?#]+$"
_NETWORK = r"^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"
_URL_PATH = r"^/v1(/([A-Za-z0-9_~:@-][A-Za-z0-9._~:@-]*|\*))+$"
_JUMP = r"^[A-Za-z0-9][A-Za-z0-9._@:-]*(,[A-Za-z0-9][A-Za-z0-9._@:-]*)*$"
_VERSION = r"^[0-9]+(\.[0-9]+)*$"
_DAY = r"^20[0-9]{2}-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?$"
_RELATIVE = r"^(\.|[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*)$"
# What a proxy's configuration file has no quotes for. "$" cannot be escaped in nginx.conf.
_PLAIN_PATH = r"^[^$\"'\\]*$"
_SSH_OPTION = r"^[A-Za-z][A-Za-z0-9]{0,63}=.+$"
_PROGRAM = r"^[A-Za-z0-9/][A-Za-z0-9_./+-]{0,254}$"
_IMAGE = (
    r"^[A-Za-z0-9][A-Za-z0-9._:/-]*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?$"
)
_REGISTRY = r"^[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9._/-]+)?$"
_PLATFORM = r"^linux/(amd64|arm64|x86_64|aarch64)$"
_MOUNT = r"^/[^:,]*:/[^:,]*(:ro|:rw)?$"
_ABSOLUTE = r"^/[^:,]*$"
_USER = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?$"
_COMMIT = r"^[0-9a-f]{40}$"
_START = "beginning with a letter or digit"
_SUFFIX = r"^[A-Za-z0-9._-]{1,63}$"
IN_WORDS = {
    _NAME: f"letters, digits, dots, dashes and underscores, {_START}, 63 at most",
    _SUFFIX: "letters, digits, dots, dashes and underscores, 63 at most",
    _NODE_NAME: f"letters, digits, dashes and underscores, {_START}, 63 at most",
    _ADDRESS: "an IP address or a host name",
    _SIZE: "a size like 512k, 16m or 1g",
    _TIME: "a time like 500ms, 10s, 5m or 1h",
    _BUFFERS: "number and size like 4 512k",
    _VARIABLE: "a variable's name: letters, digits and underscores, no digit first",
    _FLAG: f"a flag without its dashes: letters, digits, - and _, {_START}",
    _URL: "an address beginning with https://, http:// or file://",
    _WEB_ADDRESS: "an address beginning with https:// or http://, without a user's name",
    _NETWORK: "an IP address, or a network like 10.0.0.0/8",
    _URL_PATH: "a path below /v1/, like /v1/completions; * stands for one step of any name",
    _JUMP: "user@host:port, several separated by commas",
    _IMAGE: "REPOSITORY:TAG or REPOSITORY@sha256:DIGEST",
    _REGISTRY: "a registry: HOST, HOST:PORT or HOST:PORT/PATH",
    _PLATFORM: "linux/arm64 or linux/amd64",
    _MOUNT: "HOST_PATH:CONTAINER_PATH, both absolute, with :ro behind for read only",
    _ABSOLUTE: "an absolute path without colons and commas",
    _USER: "USER or USER:GROUP, names or numbers",
    _COMMIT: "a whole commit: 40 hexadecimal digits, lower case",
    _VERSION: "numbers with dots, like 25.5.2",
    _DAY: 'a month or a day, like "2025-09" or "2025-09-12"',
    _RELATIVE: "a path below a folder, like a/b, or . for that folder itself",
    _PLAIN_PATH: "a path without quotes, backslashes and dollar signs",
    _SSH_OPTION: "an option of ssh as KEY=VALUE, for example IdentitiesOnly=yes",
    _PROGRAM: "a program's name or path: letters, digits and / . _ + -",
}


def parse_devices(text: str) -> tuple[int, ...]:
    """Device ids of "0-3,8": (0, 1, 2, 3, 8). Raises ValueError when malformed or repeated."""
    ids: list[int] = []
    for part in text.split(",") if text else []:
        match = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part)
        if not match:
            raise ValueError(f"{part!r} is neither a device id nor a range")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"the range {part} does not count upwards")
        ids.extend(range(first, last + 1))
    if len(set(ids)) != len(ids):
        raise ValueError("a device id stands twice")
    return tuple(ids)


def _devices(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    wanted = 'device ids like "0-7" or "0,2,5"'
    if not isinstance(value, str):
        raise ValueError(wanted)
    try:
        parse_devices(value)
    except ValueError as error:
        raise ValueError(f"{wanted} ({error})") from None
    return value


def _address(value: str) -> str:
    if ":" in value or not value.strip("0123456789."):
        try:
            ip_address(value)
        except ValueError:
            raise ValueError("an IP address like 10.0.0.1, or a host name") from None
    return value


def _network(value: str) -> str:
    try:
        ip_network(value, strict=False)
    except ValueError:
        raise ValueError(IN_WORDS[_NETWORK]) from None
    return value


def _absolute(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("an absolute path")
    return value


def _own_address(value: str) -> str:
    if value in ("0.0.0.0", "::"):
        raise ValueError("the host's own address: this one stands for all addresses")
    return value


def _line(value: str) -> str:
    if not value:
        raise ValueError("some text, or null where a setting may be left out")
    if any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in value):
        raise ValueError("text without control characters (line breaks, tabs)")
    return value


def _path(value: str) -> str:
    if any(opening in value for opening in ("{{", "{%", "{#")):
        raise ValueError("a path without {{, {% or {#: Ansible would take them for code")
    return value


def _fits(value: str) -> str:
    """Within what Linux takes as a path: 4095 bytes, 255 between two slashes."""
    if len(value.encode(errors="replace")) > 4000 or any(
        len(part.encode(errors="replace")) > 255 for part in value.split("/")
    ):
        raise ValueError("a path of at most 4000 bytes, each name in it of at most 255")
    return value


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str))


def env_value(value: Any) -> Any:
    if value is not None and not _is_scalar(value):
        raise ValueError("text, a number, true, false or null")
    return value


def arg_value(value: Any) -> Any:
    if isinstance(value, list) and not all(_is_scalar(word) for word in value):
        raise ValueError("a list of plain words (write JSON as a map)")
    return value


# Variables and flags of servers are free; these values have rules that the engine would tell late.

_INTERFACE = re.compile(r"[^\s,^=!]+")


def _seconds_of_hccl(value: Any) -> bool:
    return 120 <= (whole(str(value)) or 0) <= 7200


def _one_interface(value: Any) -> bool:
    return bool(_INTERFACE.fullmatch(str(value)))


_ONE_INTERFACE = (_one_interface, "the name of one interface, as hosts.NAME.interface sets it")
_KNOWN_VARIABLES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "HCCL_CONNECT_TIMEOUT": (_seconds_of_hccl, "120 to 7200 seconds"),
    "GLOO_SOCKET_IFNAME": _ONE_INTERFACE,
    "TP_SOCKET_IFNAME": _ONE_INTERFACE,
}


def known_variables(given: dict[str, Any]) -> dict[str, Any]:
    """Variables of a server. What refers to the plan, or to a secret, is not known yet."""
    for name, (fits, expected) in _KNOWN_VARIABLES.items():
        value = given.get(name)
        if _is_scalar(value) and "${" not in str(value) and not fits(value):
            raise _error(expected, (name,), value)
    return given


def known_flags(given: dict[str, Any]) -> dict[str, Any]:
    """Flags of a server: tokens that are guessed ahead are counted, here and in the engine."""
    for name, value in given.items():
        if name.replace("_", "-") != "speculative-config":
            continue
        data: Any = value
        steps: tuple[str, ...] = (name, _GUESSED)
        if isinstance(value, str):
            with suppress(ValueError):
                data, steps = parsed(value), (name,)
        told = data.get(_GUESSED, 0) if isinstance(data, dict) else 0
        if "${" not in str(told) and (type(told) is not int or told < 0):
            raise _error(f"a whole number as {_GUESSED}", steps, told)
    return given


_GUESSED = "num_speculative_tokens"


def _error(expected: str, steps: tuple[str, ...], value: Any) -> ValidationError:
    """An error of a value within: a map's own would have the map's place."""
    said = PydanticCustomError("value_error", "{expected}", {"expected": expected})
    return ValidationError.from_exception_data("", [{"type": said, "loc": steps, "input": value}])


SCALAR = {"type": ["string", "number", "boolean", "null"]}
ARG = {"type": ["string", "number", "boolean", "null", "array", "object"]}

Devices = Annotated[
    str, BeforeValidator(_devices), WithJsonSchema({"type": ["string", "integer"], "minimum": 0})
]
Line = Annotated[str, AfterValidator(_line), Field(json_schema_extra={"minLength": 1})]
_Untouched = Annotated[Line, AfterValidator(_path)]
PathText = Annotated[_Untouched, AfterValidator(_fits)]
Name = Annotated[str, Field(pattern=_NAME)]
Suffix = Annotated[str, Field(pattern=_SUFFIX)]
NodeName = Annotated[str, Field(pattern=_NODE_NAME)]
Address = Annotated[str, Field(pattern=_ADDRESS), AfterValidator(_address)]
OwnAddress = Annotated[Address, AfterValidator(_own_address)]
Jump = Annotated[str, Field(pattern=_JUMP)]
SshOption = Annotated[_Untouched, Field(pattern=_SSH_OPTION)]
Program = Annotated[str, Field(pattern=_PROGRAM)]
Url = Annotated[str, Field(pattern=_URL)]
WebAddress = Annotated[str, Field(pattern=_WEB_ADDRESS)]
Network = Annotated[str, Field(pattern=_NETWORK), AfterValidator(_network)]
UrlPath = Annotated[str, Field(pattern=_URL_PATH)]
Port = Annotated[int, Field(ge=1, le=65535)]
Offset = Annotated[int, Field(ge=0, le=60000)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
ImageName = Annotated[Line, Field(pattern=_IMAGE)]
Platform = Annotated[str, Field(pattern=_PLATFORM)]
Registry = Annotated[str, Field(pattern=_REGISTRY)]
Mount = Annotated[PathText, Field(pattern=_MOUNT)]
Version = Annotated[str, Field(pattern=_VERSION)]
Day = Annotated[str, Field(pattern=_DAY)]
RelativePath = Annotated[str, Field(pattern=_RELATIVE)]
AbsolutePath = Annotated[PathText, Field(pattern=_ABSOLUTE)]
UserName = Annotated[str, Field(pattern=_USER)]
Commit = Annotated[str, Field(pattern=_COMMIT)]
Mebibytes = Annotated[int, Field(ge=0)]
PlainPath = Annotated[PathText, Field(pattern=_PLAIN_PATH)]
ModulesPath = Annotated[PlainPath, AfterValidator(_absolute)]
Size = Annotated[str, Field(pattern=_SIZE)]
Buffers = Annotated[str, Field(pattern=_BUFFERS)]
NginxTime = Annotated[str, Field(pattern=_TIME)]
EnvName = Annotated[str, Field(pattern=_VARIABLE)]
FlagName = Annotated[str, Field(pattern=_FLAG)]
EnvValue = Annotated[Any, AfterValidator(env_value), WithJsonSchema(SCALAR)]
Balance = Literal[
    "least_work",
    "least_conn",
    "round_robin",
    "pd_score_balance",
    "prefill_score_balance",
    "weighted_least_active",
    "greedy_timeout",
    "least_total_load",
    "auto_balance_controller",
    "length_balance",
]
PrefillBalance = Literal[Balance, "prefix"]


def _proxy_kind(value: object) -> object:
    return "nginx-lua" if value == "nginx-njs" else value  # its name in earlier versions


ProxyKind = Annotated[
    Literal["auto", "nginx-lua", "vllm-router", "omni-nginx", "omni-proxy"],
    BeforeValidator(_proxy_kind),
    WithJsonSchema(
        {"enum": ["auto", "nginx-lua", "nginx-njs", "vllm-router", "omni-nginx", "omni-proxy"]}
    ),
]
