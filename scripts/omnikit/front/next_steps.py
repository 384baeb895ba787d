"""What makes sense after a command that went well, for who sits at a terminal. What to do after one
that failed stands in its error.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys

from hostkit.base.log import say

# Set for the scripts that tasks start, whose output goes through a pipe to the terminal.
TERMINAL = "_OMNIKIT_TERMINAL"
_AFTER = {
    "add_host": ("verify-serving", "watch"),
    "benchmark_serving": ("profile-serving", "report"),
    "build_from_source": ("restart",),
    "build_image": ("deploy",),
    "build_ranktables": ("check-ranktable", "deploy"),
    "build_wheels": ("install-wheels",),
    "bundle": (),  # it goes on on another machine, and says how
    "check_checkpoint": ("verify-weights", "deploy"),
    "check_env": ("plan", "deploy"),
    "check_packages": ("deploy",),
    "check_ranktable": ("deploy",),
    "clean_up": ("deploy",),
    "completion": (),  # its output is the shell's
    "config": ("plan",),
    "convert_weights": ("verify-weights", "distribute-weights"),
    "deploy": ("watch", "benchmark-serving"),
    "docs": (),
    "distribute_weights": ("warm", "deploy"),
    "doctor": ("history", "watch"),
    "download_weights": ("check-checkpoint", "convert-weights"),
    "export_ansible": (),  # its file says what to do with it
    "fetch_logs": ("doctor", "report"),
    "finish_checkpoint": ("check-checkpoint", "verify-weights"),
    "history": ("status", "doctor"),
    "import_config": (),  # says so itself, with the file's name
    "init": (),  # as import_config
    "install_engine": ("deploy",),
    "install_proxy": ("deploy",),
    "install_wheels": ("restart",),
    "lock_dependencies": (),  # of who develops this
    "logs": ("doctor",),
    "make_tiny_model": ("deploy",),
    "metrics": ("watch",),
    "pip_install": ("run-server",),
    "plan": ("check-env", "deploy"),
    "prepare_checkpoint": ("run-msmodelslim",),
    "profile_serving": ("report",),
    "pull_image": ("check-env", "deploy"),
    "releases": ("rollback",),
    "reload_proxy": ("status",),
    "remove_container": ("deploy",),
    "remove_host": ("status", "verify-serving"),
    "report": ("doctor",),
    "restart": ("status", "watch"),
    "roll": ("history", "watch"),
    "roll_prefill": ("history", "watch"),
    "rollback": ("status", "history"),
    "run_docker": ("pip-install", "run-server"),
    "run_msmodelslim": ("verify-weights", "distribute-weights"),
    "run_proxy": ("smoke-test",),
    "run_server": ("run-proxy",),
    "serve": ("benchmark-serving", "stop"),
    "setup_keys": ("check-env", "deploy"),
    "smoke_test": ("verify-serving", "benchmark-serving"),
    "start_container": ("deploy",),
    "status": ("watch", "smoke-test"),
    "stop": ("deploy", "clean-up"),
    "stop_container": ("start-container", "deploy"),
    "sync_code": ("roll", "restart"),
    "timeline": ("history",),
    "unlock": ("status", "deploy"),
    "verify_serving": ("benchmark-serving", "watch"),
    "verify_weights": ("distribute-weights", "deploy"),
    "warm": ("deploy",),
    "watch": (),  # its screen is gone when somebody has seen enough
    "write_sbom": (),  # of who publishes this
}
_IF_NOT = {"status": ("doctor",), "smoke_test": ("doctor",), "verify_serving": ("doctor",)}


def tell(script: str, given: argparse.Namespace, code: int) -> None:
    """One line on standard error, in a terminal only."""
    if getattr(given, "json", False) or not (sys.stderr.isatty() or os.environ.get(TERMINAL)):
        return
    steps = _AFTER.get(script, ()) if code == 0 else _IF_NOT.get(script, ())
    if code == 0 and getattr(given, "only_file", False):  # nothing of it serves yet
        steps = ("setup-keys", "check-env")
    if code == 0 and getattr(given, "dry_run", False) and steps:
        say("next: the same without --dry-run")
    elif steps:
        chosen = getattr(given, "environment", None)
        where = f" --environment {shlex.quote(chosen)}" if chosen else ""
        say("next: " + "; ".join(f"invoke {step}{where}" for step in steps))
