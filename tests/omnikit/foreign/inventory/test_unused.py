"""Variables that nobody reads are named, with the reason or with the name that was meant."""

from __future__ import annotations

import pytest

from omnikit.foreign.inventory import inventory
from omnikit.yaml.node import Origin

KNOWN = ("DOCKER_IMAGE_ID", "LOG_PATH")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("etcd_port", "LMCache"),
        ("mooncake_master_port", "LMCache"),
        ("docker_run_cmd", "makes its commands itself"),
        ("start_docker_cmd_p", "makes its commands itself"),
        ("ranktable_save_path", "paths.work_dir"),
        ("ansible_become", "the user who logs in"),
        ("ansible_ssh_retries", "own way"),
        ("DOCKER_IMGE_ID", "is DOCKER_IMAGE_ID meant?"),
        ("colour", "nothing here reads it"),
    ],
)
def test_the_reason_is_said(name: str, why: str) -> None:
    assert why in inventory.reason(name, KNOWN)


def test_what_has_one_reason_is_one_note_with_all_lines() -> None:
    at = {name: Origin("f.yml", line) for line, name in enumerate(("a_cmd", "x", "b_cmd"), 3)}
    notes = inventory.notes([*at.items(), ("x", at["x"])], KNOWN)
    assert notes[0].startswith("f.yml:3: a_cmd, b_cmd (line 5): not used: the toolkit makes")
    assert notes[1] == "f.yml:4: x: not used: nothing here reads it"
    assert len(notes) == 2
