"""Text of 100,000 brackets is refused with its place and exit code 2, whoever reads it: the C code
that parses YAML has no bound of its own and would take the process with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import plan
import pytest

from hostkit.base.health import Answer
from omnikit.weights.download import plan as download_plan
from omnikit.weights.msmodelslim import edits

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
DEEP = {
    "flow lists": "a: " + "[" * 100_000,
    "flow maps": "a: " + "{a: " * 100_000,
    "block lists": "a:\n  " + "- " * 100_000,
    "keys": "a:\n  " + "? " * 100_000,
    "an inventory": "all: " + "[" * 100_000,
    "a deployment": "deployment:\n  " + "- " * 100_000,
    "JSON": '{"all": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "JSON of 700 levels": '{"all": ' + "[" * 700 + "]" * 700 + "}",
}


def refused(words: list[str], **variables: str) -> str:
    """What a script said when it refused its input; in a process of its own, which could crash."""
    env = {**os.environ, **variables}
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / words[0]), *words[1:]],
        env=env, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, (done.returncode, done.stderr[-300:])
    assert done.stderr.startswith("error: ") and len(done.stderr) < 1000
    assert "nested too deeply" in done.stderr, done.stderr
    return done.stderr


@pytest.mark.parametrize("kind", DEEP)
def test_a_settings_file_and_its_line(kind: str, tmp_path: Path) -> None:
    """Ours, omni_cli's, an inventory, as YAML and as JSON."""
    path = tmp_path / "deep.yaml"
    path.write_text(DEEP[kind])
    line = 2 if DEEP[kind].startswith("a:\n") or "deployment" in DEEP[kind] else 1
    assert f"{path}:{line}" in refused(["config.py", "--config", str(path)])


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 30_000])
def test_an_option_and_a_variable(text: str) -> None:
    assert "--set server.args" in refused(["config.py", "--set", f"server.args={text}"])
    told = refused(["config.py"], OMNIKIT_SERVER__ARGS=text)
    assert "OMNIKIT_SERVER__ARGS" in told


def test_a_file_that_is_imported(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yml"
    path.write_text(DEEP["an inventory"])
    refused(["import_config.py", str(path), "--dry-run"])


DEEP_JSON = "[" * 100_000


def test_a_flag_a_server_and_a_hub_that_write_json(tmp_path: Path) -> None:
    """Where JSON is text, the reader of YAML does not see how deep it is."""
    for flag in ("speculative_config", "kv-transfer-config"):
        name = f"roles.decode.server.args.{flag}"
        assert plan.main(["-e", "2p1d", "--set", f"{name}='{DEEP_JSON}'"]) in (0, 2)
    assert Answer(200, DEEP_JSON, {}).json() == {}
    assert download_plan._weight_map(DEEP_JSON.encode()) is None
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": 5}')
    edits.refuse_unconverted(tmp_path)
    with pytest.raises(edits.Unexpected):
        edits.config_after(DEEP_JSON, edits.LAYERS)
