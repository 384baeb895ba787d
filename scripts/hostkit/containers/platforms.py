"""What an image or an engine is for: OS/ARCH, in the words of engines and of uname. Pure.

Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import platform

# Engines' words by uname's.
_WORDS = {"x86_64": "amd64", "aarch64": "arm64"}
# Variants that say nothing: every processor of the architecture is that one.
_PLAIN = {("amd64", "v1"), ("arm64", "v8")}


def normal(text: str) -> str:
    """A platform as it is compared; empty when it names no architecture.

    >>> normal("linux/aarch64"), normal("linux/arm64/v8"), normal("linux/"), normal("linux/arm/v7")
    ('linux/arm64', 'linux/arm64', '', 'linux/arm/v7')
    """
    system, word, variant = (*text.strip().lower().split("/"), "", "")[:3]
    word = _WORDS.get(word, word)
    if not word or "unknown" in (system, word):
        return ""
    rest = "" if not variant or (word, variant) in _PLAIN else f"/{variant}"
    return f"{system or 'linux'}/{word}{rest}"


def differ(found: str, wanted: str) -> bool:
    """Whether both are known, and not the same."""
    return bool(normal(found) and normal(wanted)) and normal(found) != normal(wanted)


def machine(text: str) -> str:
    """What uname -m, and wheels, call a platform's architecture.

    >>> machine("linux/arm64"), machine("linux/amd64"), machine("linux/riscv64")
    ('aarch64', 'x86_64', 'riscv64')
    """
    word = normal(text).partition("/")[2].partition("/")[0]
    return next((uname for uname, engines in _WORDS.items() if engines == word), word)


def own() -> str:
    """The platform of this machine's kernel."""
    return normal(f"linux/{platform.machine()}")
