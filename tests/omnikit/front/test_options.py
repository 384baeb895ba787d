"""The options by which every script chooses its configuration."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from settings_file import write

from omnikit.config.layers import PROJECT
from omnikit.front.options import add_config, load_config


def options(*words: str) -> argparse.Namespace:
    made = argparse.ArgumentParser()
    add_config(made)
    return made.parse_args(words)


def test_environment_files_and_assignments_reach_the_configuration(tmp_path: Path) -> None:
    sites = [str(write(tmp_path, f"ports: {{zmq: {n}}}", f"{n}.yaml")) for n in (1001, 1002)]
    words = ["-e", "2p1d", "--config", sites[0], "--config", sites[1], "--set", "ports.ray=1003"]
    loaded = load_config(options(*words))
    assert loaded.environment == "2p1d"
    assert (loaded.settings.ports.zmq, loaded.settings.ports.ray) == (1002, 1003)


def test_without_options_the_environment_is_local() -> None:
    assert load_config(options()).environment == "local"


def test_help_pays_for_no_heavy_import() -> None:
    modules = "omnikit.front.script, omnikit.front.options"
    code = f"import sys, {modules}; print({{'pydantic', 'yaml'}} & {{*sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT / "scripts",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()"
