#!/usr/bin/env python3
"""Turn another tool's file into an environment file of ours.

An omni_infer_deployment.yml, an Ansible inventory, or a recipe of vllm-ascend with --hosts.

Runs on the control host. Writes one file, whose comments say where each value came from; a
password is never copied: the file refers to a place for it, and what to do is said. The second
run says unchanged. Every script also takes such a file as it is: --config FILE.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Optional

from omnikit.front.options import add
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Read, check by planning, write, report."""
    from omnikit.config import config, layers
    from omnikit.foreign import format, recipe
    from omnikit.foreign import layout as foreign_layout
    from omnikit.topology.topology import make_plan
    from omnikit.yaml.strict_yaml import read_text

    source = Path(options.file).expanduser()
    shown = layers.shown_path(source)
    text = read_text(source, shown)
    if format.recognise(text) == recipe.KIND:
        return _recipe(options, source, shown, text)
    kind = format.expect(text, shown)
    layout = format.read_layout(text, shown, layers.ENVIRONMENT)
    chosen = _profile(options)
    layout.profile.update(chosen)
    files = [source, *(Path(file).expanduser() for file in options.vars)]
    for file in files[1:]:
        shown_file = layers.shown_path(file)
        more = format.read_variables(read_text(file, shown_file), shown_file, layers.ENVIRONMENT)
        layout.settings.update(more.settings)
        layout.notes += more.notes
    assignments = [f"profile.{key}={value}" for key, value in chosen.items()]
    loaded = config.load(None, [str(file) for file in files], assignments, environ={})
    plan, tree = make_plan(loaded), layout.tree()
    made = foreign_layout.environment(tree, shown, kind)
    out = Path(options.out).expanduser() if options.out else _default(source)
    state = "not written" if options.dry_run else _write(out, made, options.force)
    left = foreign_layout.left_out(tree)
    report: dict[str, Any] = {
        "source": shown,
        "kind": kind,
        "file": layers.shown_path(out),
        "environment": str(out) if options.out else source.stem,
        "state": state,
        "prefill_instances": len(layout.prefill),
        "decode_hosts": sum(map(len, layout.decode)),
        "proxy": layout.proxy.name if layout.proxy else None,
        "passwords_left_out": [
            {"hosts": one.hosts, "origin": str(one.origin), "file": one.file, "todo": one.command}
            for one in left
        ],
        "without_effect": [*loaded.notes, *plan.notes],
    }
    return _say(options, report, made)


def _profile(options: argparse.Namespace) -> dict[str, str]:
    """Release and model where somebody chose them; a release may name the model that it is for."""
    from omnikit.config import layers

    made = {}
    if options.release:
        made["omni_version"] = options.release
        file = layers.layer_file("versions", options.release, "--release")
        model = layers.read_file(file, layers.VERSION).find(("profile", "model"))
        if model is not None:
            made["model"] = str(model.value)
    if options.model:
        layers.layer_file("models", options.model, "--model")
        made["model"] = options.model
    return made


def _recipe(options: argparse.Namespace, source: Path, shown: str, text: str) -> int:
    """Read, write, plan what was written, report."""
    from omnikit.config import config, layers
    from omnikit.foreign import layout as foreign_layout
    from omnikit.foreign import recipe, trees
    from omnikit.topology.topology import make_plan

    repeated: list[str] = []
    tree = trees.read_yaml(text, shown, layers.ENVIRONMENT, repeated)
    hosts = _machines(options.hosts, tree)
    reader = recipe.Reader(tree, shown, layers.ENVIRONMENT, hosts, repeated)
    settings = reader.read()
    made = foreign_layout.environment(settings, shown, recipe.KIND)
    out = Path(options.out).expanduser() if options.out else _default(source)
    plan = make_plan(config.load(out.name, environ={}, tree=settings))
    state = "not written" if options.dry_run else _write(out, made, options.force)
    report: dict[str, Any] = {
        "source": shown,
        "kind": recipe.KIND,
        "file": layers.shown_path(out),
        "environment": str(out) if options.out else source.stem,
        "state": state,
        "prefill_instances": reader.layout["prefill"],
        "decode_hosts": len({node.host for node in plan.nodes if node.role == "decode"}),
        "proxy": plan.proxy.host if plan.proxy else None,
        "passwords_left_out": [],
        "without_effect": [*reader.notes, *plan.notes],
    }
    return _say(options, report, made)


def _machines(given: Optional[str], tree: Any) -> list[tuple[str, Any]]:
    """The machines of a recipe: of a file, as addresses, or as the recipe itself has them."""
    from omnikit.config import layers
    from omnikit.foreign import format, recipe

    if given is None:
        own = tree.child("cluster_hosts")
        listed = own.plain() if own is not None else None
        words = ",".join(map(str, listed)) if isinstance(listed, list) else ""
        return recipe.addresses(words, str((own or tree).origin), layers.ENVIRONMENT)
    file = Path(given).expanduser()
    if file.suffix in (".yaml", ".yml", ".json") or file.is_file():
        return format.machines(layers.read_file(file, layers.ENVIRONMENT))
    return recipe.addresses(given, "--hosts", layers.ENVIRONMENT)


def _default(source: Path) -> Path:
    """Where the environments of users stand, as invoke init writes them: not among the shipped."""
    from omnikit.config.layers import own_file

    return own_file(source.stem)


def _write(out: Path, text: str, force: bool) -> str:
    """Write the file whole. Returns what was done. Raises InputError."""
    from hostkit.base.errors import InputError
    from hostkit.files import regular
    from omnikit.config.layers import own_file

    beside = out.with_name(f".{out.name}.new")
    try:
        old = regular.text(out) if out.exists() else None
        if old == text:
            return "unchanged"
        if old is not None and not force:
            raise InputError(
                "the file is there and differs from what would be written.",
                where=str(out),
                todo="compare with --dry-run; then --out another file, or --force",
            )
        if out == own_file(out.name.removesuffix(".local.yaml")):
            out.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        beside.replace(out)
    except (OSError, UnicodeDecodeError) as error:
        beside.unlink(missing_ok=True)
        why = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot write the file: {why}.", where=str(out), todo="choose another with --out"
        ) from error
    return "created" if old is None else "replaced"


def _say(options: argparse.Namespace, report: dict[str, Any], made: str) -> int:
    """What a person wants to know, on standard error where standard output has the file."""
    from hostkit.base.log import give, say

    if options.json:
        print(json.dumps(report, indent=1, ensure_ascii=False))
        return 0
    give(made if options.dry_run else "", end="")
    say(
        f"{report['source']}: {report['kind']}; prefill instances: {report['prefill_instances']},"
        f" decode hosts: {report['decode_hosts']}, proxy on {report['proxy']}"
    )
    for note in report["without_effect"]:
        say(f"note: {note}")
    for one in report["passwords_left_out"]:
        hosts = ", ".join(one["hosts"])
        say(f"the password of {hosts} ({one['origin']}) was not copied; in bash, type it to:")
        say(f"  {one['todo']}")
    say(f"{report['file']}: {report['state']}")
    if report["state"] != "not written":
        chosen = report["environment"]
        steps = ("plan", "check-env", "deploy")
        say("next: " + "; ".join(f"invoke {step} --environment {chosen}" for step in steps))
    return 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    made.add_argument(
        "file", metavar="FILE", help="omni_infer_deployment.yml, an inventory, or a recipe"
    )
    made.add_argument(
        "--hosts",
        metavar="HOSTS",
        help="of a recipe: addresses in its order (10.0.0.1,10.0.0.2), or a file with our hosts:",
    )
    made.add_argument(
        "--vars",
        action="append",
        default=[],
        metavar="FILE",
        help="playbook of omni-infer, or its variables (NAME: value); repeatable",
    )
    made.add_argument(
        "--release", metavar="NAME", help="of omni-infer, one of configs/versions; default: v0.4.1"
    )
    made.add_argument("--model", metavar="NAME", help="one of configs/models")
    made.add_argument(
        "--out", metavar="FILE", help="default: configs/environments/<name of FILE>.local.yaml"
    )
    made.add_argument("--force", action="store_true", help="replace a different file at --out")
    add(
        made,
        dry_run="print the environment file, write nothing",
        json="print what was done as JSON",
    )


main = Script(
    __doc__,
    body,
    arguments,
    example="python scripts/import_config.py omni_infer_deployment.yml --dry-run",
)


if __name__ == "__main__":
    sys.exit(main())
