#!/usr/bin/env python3
"""Print what has your shell complete invoke's commands, options, environments and instances.

Runs anywhere, changes nothing. In bash, and in zsh after: autoload -U bashcompinit; bashcompinit,
it is: source <(invoke completion), best in ~/.bashrc or ~/.zshrc.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Sequence

from hostkit.base import run
from omnikit.front.script import Script

_SHELL = """\
_omnikit_completion() {
  COMPREPLY=($(%s "${COMP_WORDS[@]}" 2>/dev/null))
}
complete -o default -F _omnikit_completion invoke inv .venv/bin/invoke
"""
_ENVIRONMENTS = ("-e", "--environment")


def _after(words: Sequence[str], names: Sequence[str]) -> str:
    """The value that an option has among finished words, "" for none."""
    found = ""
    for before, word in zip(words, words[1:]):
        if before in names:
            found = word
    for word in words:
        name, equals, value = word.partition("=")
        found = value if equals and name in names else found
    return found


def _environments() -> list[str]:
    from omnikit.config import layers

    folders = [layers.PROJECT / "configs" / "environments", layers.own_file("x").parent]
    names = {path.name for folder in folders for path in folder.glob("*.yaml")}
    return sorted({name.removesuffix(".yaml").removesuffix(".local") for name in names})


def _places(option: str, environment: str) -> list[str]:
    """Names of instances, or of hosts; none of an environment that has a mistake."""
    from hostkit.base.errors import ToolkitError
    from omnikit.config import config
    from omnikit.topology.topology import make_plan

    try:
        plan = make_plan(config.load(environment or None))
    except ToolkitError:
        return []
    if option == "--host":
        return [host.name for host in plan.hosts]
    return [node.name for node in plan.nodes] + ([plan.proxy.name] if plan.proxy else [])


def offered(words: Sequence[str]) -> list[str]:
    """What the last of a command line's words may become."""
    done, last = [word for word in words[:-1] if word != "="], words[-1]
    last = "" if last == "=" else last
    if done[-1] in _ENVIRONMENTS:
        found = _environments()
    elif done[-1] in ("--instance", "--host"):
        found = _places(done[-1], _after(done, _ENVIRONMENTS))
    else:
        invoke = [sys.executable, "-m", "invoke", "--complete", "--", *done, last]
        where = Path(__file__).resolve().parents[1]
        found = run.run(invoke, cwd=where, check=False).out.split()
    return [one for one in found if one.startswith(last)]


def body(options: argparse.Namespace) -> int:
    """Print the shell's part, or what it asks for."""
    if options.line:
        print("\n".join(offered(options.line)))
        return 0
    call = shlex.join([sys.executable, str(Path(__file__).resolve()), "--line"])
    print(_SHELL % call, end="")
    return 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    made.add_argument("--line", nargs=argparse.REMAINDER, help="(the shell's) what is on the line")


main = Script(__doc__, body, arguments, example="source <(python scripts/completion.py)")


if __name__ == "__main__":
    sys.exit(main())
