"""What differs between the files that a node was started with and those it would get: names only.

Values stay out of it, for some are secret. Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import json
import re
import shlex
import zipfile
from pathlib import Path

_EXPORT = re.compile(r"^\s*export ([A-Za-z_][A-Za-z0-9_]*)=")
_FLAG = re.compile(r"^\s*(--[A-Za-z0-9_-]+)(?: (.*?))?( \\)?$")
_SHOWN = 4


def of_node(source: Path, work_dir: Path, node: str) -> list[str]:
    """Variables, flags and files of a node that would change; none where that cannot be told.

    source: the shipped archive; work_dir holds what was unpacked last.
    """
    if not zipfile.is_zipfile(source):
        return []
    found: list[str] = []
    with zipfile.ZipFile(source) as archive:
        names = {name for name in archive.namelist() if _concerns(name, node)}
        there = {
            str(path.relative_to(work_dir))
            for folder in (node, "ranktable")
            for path in (work_dir / "bundle" / folder).rglob("*")
            if path.is_file()
        }
        for name in sorted(names | there):
            new = archive.read(name).decode() if name in names else ""
            old = (work_dir / name).read_text(encoding="utf-8") if name in there else ""
            if new == old:
                continue
            lines = of_script(old, new) if name.endswith(".sh") else []
            found += lines or [name[len("bundle/") :]]
    return found


def shown(names: list[str]) -> str:
    """For one line."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def of_script(old: str, new: str) -> list[str]:
    """Variables and flags that differ between two start scripts; of JSON also which keys. Pure."""
    before, after = _named(old), _named(new)
    names = [name for name in {**after, **before} if before.get(name) != after.get(name)]
    return [_keys(name, before.get(name, ""), after.get(name, "")) for name in names]


def _concerns(name: str, node: str) -> bool:
    return name.startswith((f"bundle/{node}/", "bundle/ranktable/"))


def _named(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.splitlines():
        export, flag = _EXPORT.match(line), _FLAG.match(line)
        if export:
            found[export[1]] = found.get(export[1], "") + line
        elif flag:
            found[flag[1]] = flag[2] or ""
    return found


def _keys(name: str, old: str, new: str) -> str:
    try:
        before, after = (json.loads("".join(shlex.split(text))) for text in (old, new))
    except ValueError:
        return name
    if not isinstance(before, dict) or not isinstance(after, dict):
        return name
    keys = sorted(key for key in {**before, **after} if before.get(key) != after.get(key))
    return f"{name} ({', '.join(keys)})"
