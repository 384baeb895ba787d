"""The bill of materials: by the schema of CycloneDX, and what stands in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import write_sbom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from omnikit.engine import pins

ROOT = Path(__file__).resolve().parents[1]


def made(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert write_sbom.main(list(words)) == 0
    text = capsys.readouterr().out
    against = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert against is None, str(against)
    bill: dict[str, Any] = json.loads(text)
    return bill


def test_it_has_every_locked_package_with_its_check_sums(capsys) -> None:
    parts = {part["bom-ref"]: part for part in made(capsys)["components"]}
    for name in write_sbom.LOCKS.values():
        for entry in pins.read_entries(ROOT / name):
            part = parts[f"pkg:pypi/{entry.name}@{entry.version.replace('+', '%2B')}"]
            assert entry.sums <= {h["content"] for h in part["hashes"]}
    torch = parts["pkg:pypi/torch@2.13.0%2Bcpu"]
    assert torch["properties"] == [{"name": "omnikit:part", "value": "cpu-engine"}]


def test_images_and_sources_say_whether_they_are_pinned(capsys) -> None:
    digest, commit = "sha256:" + "0" * 64, "1" * 40
    words = ["-e", "2p1d", "--set", f"container.image=r.example:5000/a/b@{digest}"]
    bill = made(capsys, *words, "--set", f"source.vllm_commit='{commit}'")
    parts = {(part["type"], part["name"]): part for part in bill["components"]}
    pinned = {"name": "omnikit:pinned", "value": "true"}
    image = parts["container", "r.example:5000/a/b"]
    assert image["version"] == digest and pinned in image["properties"]
    assert parts["application", "vllm"]["version"] == commit
    assert pinned in parts["application", "vllm"]["properties"]
    assert pinned not in parts["application", "omniinfer"]["properties"]
    assert parts["container", "debian"]["version"] == "bookworm-slim"
    assert pinned not in parts["container", "debian"]["properties"]


def test_a_second_run_changes_nothing(tmp_path: Path, capsys) -> None:
    for said in ("written", "unchanged"):
        assert write_sbom.main(["--out", str(tmp_path / "new" / "sbom.json")]) == 0
        assert capsys.readouterr().out.endswith(f"sbom.json: {said}\n")
