"""convert_weights.py, killed by SIGKILL right before a file or folder gets a name.

killed_conversion.py NAME OPTION...: NAME is that of the file (config.json), or TARGET's own.
A double of os.rename's callers, for no signal from outside can hit these moments for sure.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import convert_weights

_replace, _rename, _unlink = Path.replace, Path.rename, Path.unlink


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(name: str, words: list[str]) -> int:
    """name: "after TARGET": right after its renaming, before its records are removed."""
    after = name.startswith("after ")
    wanted = name.rpartition(" ")[2]

    def replace(self: Path, target: Any) -> Path:
        if Path(target).name == wanted and not after:
            _die()
        return _replace(self, target)

    def rename(self: Path, target: Any) -> Path:
        if Path(target).name == wanted and not after:
            _die()
        return _rename(self, target)

    def unlink(self: Path, missing_ok: bool = False) -> None:
        if after and self.parent.parent.name == wanted:
            _die()
        _unlink(self, missing_ok)

    Path.replace, Path.rename = replace, rename  # type: ignore[method-assign]
    Path.unlink = unlink  # type: ignore[method-assign]
    return convert_weights.main(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
