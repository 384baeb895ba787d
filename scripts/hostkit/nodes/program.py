"""Whether a proxy's program and modules are where it would run. Changes nothing.

Servers take long to start and the proxy comes last: this is asked before anything is started.
Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

from typing import Any, Optional

from hostkit.base import run
from hostkit.base.errors import InputError
from hostkit.containers import profile
from hostkit.containers.containers import Spec
from hostkit.nodes import proxy_run, setup_look

# Of the words before "--", programs, the first that is there; of those after it, files, all that
# are not. A name without a folder is looked for in PATH, which the container's profile has set.
_LOOK = """while [ "$1" != -- ]; do
  [ -n "$found" ] || found=$(command -v -- "$1")
  shift
done
shift
printf 'program %s\n' "$found"
for file; do
  [ -f "$file" ] || printf 'lacks %s\n' "$file"
done
"""


def problem(node: dict[str, Any], spec: Optional[Spec]) -> Optional[InputError]:
    """What a proxy's node lacks on this host, or in its container; None for other nodes.

    None as well where no container can be had to ask in, or no answer: its maker will hear why.
    """
    if "programs" not in node:
        return None
    modules = node.get("modules", [])
    if spec is None:
        return proxy_run.lacking("this host", node["programs"], modules)
    place = f"container {spec['name']}"
    words = ["sh", "-c", _LOOK, "sh", *node["programs"], "--", *modules]
    try:
        done = setup_look.answer(spec, profile.words(spec["profile"], place, words))
    except (setup_look.Refused, run.Outlasted):
        return None
    lines = [line.partition(" ") for line in done.out.splitlines()]
    if done.code != 0:  # of its environment, say, which is looked at by itself
        return None
    found = any(kind == "program" and path for kind, _, path in lines)
    lacks = [path for kind, _, path in lines if kind == "lacks"]
    return proxy_run.refusal(f"the {place}", node["programs"], found, lacks)
