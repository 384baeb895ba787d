#!/usr/bin/env python3
"""Write the bill of materials (CycloneDX 1.6, JSON): all that the toolkit installs or starts from.

Runs on this machine, needs no network. Python packages come from the lock files, with the sums
that pip installs by; images and sources from the configuration: what has no digest or commit there
is marked as not pinned. Changes only --out. Equal input gives equal bytes.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any

from omnikit.front.options import add_config, load_config
from omnikit.front.script import Script

ROOT = Path(__file__).resolve().parents[1]
# What each lock file is for: the part of the toolkit, as a property of its packages.
LOCKS = {
    "toolkit": "requirements.txt",
    "cpu-engine": "configs/engines/cpu-requirements.txt",
    "vllm-router": "configs/engines/router-requirements.txt",
}


def packages() -> list[dict[str, Any]]:
    """The locked Python packages; of what several parts lock, each version once."""
    from omnikit.engine import pins

    found: dict[str, dict[str, Any]] = {}
    for part, name in LOCKS.items():
        for entry in pins.read_entries(ROOT / name):
            ref = f"pkg:pypi/{entry.name}@{entry.version.replace('+', '%2B')}"
            made = found.setdefault(ref, component("library", entry.name, entry.version, ref))
            sums = {h["content"] for h in made.get("hashes", ())} | entry.sums
            made["hashes"] = [{"alg": "SHA-256", "content": content} for content in sorted(sums)]
            made["purl"] = ref
            told = {"name": "omnikit:part", "value": part}
            if told not in made["properties"]:
                made["properties"].append(told)
    return list(found.values())


def images(settings: Any) -> list[dict[str, Any]]:
    """The image that the servers run in, and what our own images start from."""
    names = {settings.container.image} - {None}
    for path in sorted(ROOT.glob("docker/*/Dockerfile")):
        names |= set(re.findall(r"^ARG BASE=(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    found = []
    for name in sorted(names):
        place, _, digest = name.partition("@")
        base, _, tag = place.rpartition(":")
        version = digest or (tag if base and "/" not in tag else "latest")
        made = component("container", base if base and "/" not in tag else place, version, name)
        found.append(_pinned(made, bool(digest)))
    return found


def sources(settings: Any) -> list[dict[str, Any]]:
    """omni-infer and vLLM, as build-wheels and sync-code take them."""
    found = []
    for name in ("omniinfer", "vllm"):
        commit = getattr(settings.source, f"{name}_commit")
        ref = getattr(settings.source, f"{name}_ref")
        made = component("application", name, commit or ref, f"source:{name}@{commit or ref}")
        urls = getattr(settings.source, f"{name}_urls")
        made["externalReferences"] = [{"type": "vcs", "url": url} for url in urls]
        found.append(_pinned(made, commit is not None))
    return found


def component(kind: str, name: str, version: str, ref: str) -> dict[str, Any]:
    """One entry of the bill."""
    return {"type": kind, "bom-ref": ref, "name": name, "version": version, "properties": []}


def _pinned(made: dict[str, Any], pinned: bool) -> dict[str, Any]:
    made["properties"].append({"name": "omnikit:pinned", "value": str(pinned).lower()})
    return made


def bill(settings: Any) -> dict[str, Any]:
    """The whole document."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.+)"', project, re.MULTILINE)
    own = component("application", "omni-deploy-toolkit", version[1] if version else "?", "toolkit")
    own["licenses"] = [{"license": {"id": "Apache-2.0"}}]
    parts = [*packages(), *images(settings), *sources(settings)]
    content = json.dumps(parts, sort_keys=True)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, content)}",
        "version": 1,
        "metadata": {"component": own},
        "components": sorted(parts, key=lambda part: str(part["bom-ref"])),
        "dependencies": [{"ref": "toolkit", "dependsOn": sorted(p["bom-ref"] for p in parts)}],
    }


def body(given: argparse.Namespace) -> int:
    """Write it to the file, or to standard output."""
    text = json.dumps(bill(load_config(given).settings), indent=1) + "\n"
    if given.out is None:
        sys.stdout.write(text)
        return 0
    same = given.out.is_file() and given.out.read_text(encoding="utf-8") == text
    if not same:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text, encoding="utf-8")
    print(f"{given.out}: {'unchanged' if same else 'written'}")
    return 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    made.add_argument("--out", type=Path, metavar="FILE", help="default: standard output")
    add_config(made)


main = Script(
    __doc__, body, arguments, example="scripts/write_sbom.py -e 2p1d --out build/sbom.json"
)


if __name__ == "__main__":
    sys.exit(main())
