#!/usr/bin/env python3
"""The former names of scripts are links to this file: it says today's name, and goes on there.

A link of a user's own to one of these names works too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Former name -> today's.
NOW = {
    "build_from_source.sh": "build_from_source.py",
    "clean_hosts.py": "clean_up.py",
    "deploy_environment.py": "deploy.py",
    "diagnose_deployment.py": "doctor.py",
    "lint_all.sh": "lint.sh",
    "profile_servers.py": "profile_serving.py",
    "pull_image.sh": "pull_image.py",
    "remove_container.sh": "remove_container.py",
    "rollback_environment.py": "rollback.py",
    "setup_keys.sh": "setup_keys.py",
    "show_config.py": "config.py",
    "show_logs.py": "logs.py",
    "show_plan.py": "plan.py",
    "show_releases.py": "releases.py",
    "show_status.py": "status.py",
    "show_timeline.py": "timeline.py",
    "start_container.sh": "start_container.py",
    "stop_container.sh": "stop_container.py",
    "stop_environment.py": "stop.py",
    "unlock_hosts.py": "unlock.py",
    "write_metrics_config.py": "metrics.py",
    "write_report.py": "report.py",
}


def main(called: Path, *words: str) -> None:
    """Become the script of today's name, with the same words behind it."""
    while called.name not in NOW and called.is_symlink():
        called = called.parent / called.readlink()
    if called.name not in NOW:
        sys.exit("error: this is no script; it answers to former names of scripts")
    script = Path(__file__).resolve().parent / NOW[called.name]
    print(f"{called.name} is now called {script.name}", file=sys.stderr, flush=True)
    runner = "bash" if script.suffix == ".sh" else sys.executable
    os.execvp(runner, [runner, str(script), *words])


if __name__ == "__main__":
    by_hand = sys.argv
    if Path(by_hand[0]).name == "_renamed.py" and len(by_hand) > 1:
        by_hand = by_hand[1:]  # from _renamed.sh
    main(Path(by_hand[0]), *by_hand[1:])
