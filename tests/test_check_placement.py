"""Placement files as omni-infer ships them: there, missing, and made for another layout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import check_placement
import numpy as np
import pytest

from omnikit.config import config
from omnikit.topology.topology import make_plan

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "check_placement.py"


def checked(folder: Path, text: str, devices: int = 32) -> subprocess.CompletedProcess[str]:
    """Ask in a folder two below the pattern's, as upstream's relative paths want it."""
    there = folder / "tools" / "scripts"
    there.mkdir(parents=True, exist_ok=True)
    (folder / "config_d.yaml").write_text(text, encoding="utf-8")
    words = [sys.executable, str(SCRIPT), "--file", "../../config_d.yaml"]
    return subprocess.run(
        [*words, "--devices", str(devices)], cwd=there, capture_output=True, text=True
    )


def pattern(folder: Path, *shape: int) -> str:
    np.save(folder / "pattern.npy", np.zeros(shape, dtype=np.int32))
    return '# A comment.\npattern_path: "../../pattern.npy"  # base\nmax_moe_layer_num: 58\n'


def test_a_pattern_for_this_layout_is_good(tmp_path: Path) -> None:
    done = checked(tmp_path, pattern(tmp_path, 32, 58, 256))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_pattern_for_another_layout_is_refused(tmp_path: Path) -> None:
    done = checked(tmp_path, pattern(tmp_path, 32, 58, 256), devices=64)
    assert done.returncode == 2
    assert "is made for 32 devices, this instance has 64" in done.stderr
    assert "model.placement=false" in done.stderr


@pytest.mark.parametrize("text", ["pattern_path: null\n", "pattern_path:\n", "other: 1\n"])
def test_a_file_without_a_pattern_fits_any_layout(tmp_path: Path, text: str) -> None:
    assert checked(tmp_path, text).returncode == 0


def test_what_is_not_there_is_named_with_its_place(tmp_path: Path) -> None:
    done = checked(tmp_path, "pattern_path: ../../nowhere.npy\n")
    assert done.returncode == 2 and "nowhere.npy" in done.stderr
    words = [sys.executable, str(SCRIPT), "--file", "/nowhere/x.yaml", "--devices", "1"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2 and "/nowhere/x.yaml" in done.stderr


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", b"PK\x03\x04", b"\x93NUMPY\x01\x00\x10\x00{x"])
def test_what_is_no_pattern_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "pattern.npy").write_bytes(data)
    done = checked(tmp_path, "pattern_path: ../../pattern.npy\n")
    assert done.returncode == 2 and "cannot be used" in done.stderr, done.stderr


def test_the_other_dimensions_are_no_devices(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.zeros(4))
    with pytest.raises(ValueError, match="devices x layers x experts"):
        check_placement.devices_of(tmp_path / "flat.npy")


def test_start_scripts_ask_for_the_whole_instance() -> None:
    plan = make_plan(config.load("2p1d", environ={}))
    asked = {node.name: node.placement_check for node in plan.nodes}
    assert asked["p1"][-3:] == (
        *("/workspace/omniinfer/tests/test_config/config_p.yaml", "--devices", "16"),
    )
    assert asked["d0"][-3:] == asked["d1"][-3:]
    assert asked["d1"][-1] == "32"
    off = make_plan(config.load("2p1d", assignments=["model.placement=false"], environ={}))
    assert not any(node.placement_check for node in off.nodes)
    assert os.access(SCRIPT, os.X_OK)
