#!/usr/bin/env python3
"""Write an Ansible inventory and playbook of an environment, with omni-infer's documented names.

Runs on the control host, writes only below --out. The playbook imports the toolkit's own, so that
plain ansible-playbook does what `invoke deploy` does. Tags: run_docker, sync_code, pip_install,
ranktable, run_server, run_proxy; and only when asked for: stop_server, fetch_log, clean_up.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, chosen, load_config


def body(options: argparse.Namespace) -> int:
    """Render and write."""
    from omnikit import ansible_export, local_setup, ranktables, redact
    from omnikit.deployment import prepare
    from omnikit.topology import make_plan

    config = load_config(options)
    plan = make_plan(config)
    found = local_setup.look(config, plan)
    tables = ranktables.remembered(plan.environment) if ranktables.needed(config, plan) else {}
    deployment = prepare(config, found.inputs, found.proxy, tables)
    out = options.out or Path("build") / "ansible" / plan.environment
    if options.dry_run:
        for name, data in ansible_export.files(deployment, out, chosen(options)).items():
            if not name.startswith("archives/"):
                print(f"--- {out / name}\n{redact.text(data.decode())}", end="")
        return 0
    done = ansible_export.write(deployment, out, chosen(options))
    if options.json:
        print(json.dumps(done, indent=1))
    else:
        for name, what in done.items():
            print(f"{out / name}: {what}")
        inventory, playbook = ansible_export.INVENTORY, ansible_export.PLAYBOOK
        print(f"run it: cd {out} && ansible-playbook -i {inventory} {playbook}")
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(__doc__ or "", example="python scripts/export_ansible.py -e 2p1d")
    add_config_options(made)
    made.add_argument("--out", type=Path, metavar="DIR", help="default: build/ansible/<name>")
    made.add_argument("--dry-run", action="store_true", help="print what would be written")
    made.add_argument("--json", action="store_true", help="print what became of each file as JSON")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
