"""The files that a host needs, as finished text. Templates hold no arithmetic."""

from __future__ import annotations

import re
import shlex
from functools import lru_cache
from typing import Any, Optional, Sequence

from hostkit.containers.profile import Profile, loading
from omnikit.config.layers import PROJECT
from omnikit.plan.types import NodePlan
from omnikit.topology.topology import HOST_CACHE, HOST_INTERFACE

TEMPLATES = PROJECT / "templates"


# What only the host knows -> the variable of the start script that has it.
_OF_HOST = {HOST_INTERFACE: '"$interface"', HOST_CACHE: '"$cache"'}
_PLACES = re.compile("(" + "|".join(map(re.escape, _OF_HOST)) + ")")


def quote(value: Any) -> str:
    """A value as one shell word that means exactly itself, with what only the host knows filled in
    there.
    """
    parts = [_OF_HOST.get(part) or shlex.quote(part) for part in _PLACES.split(str(value)) if part]
    return "".join(parts) or "''"


def uses(node: NodePlan, what: str) -> bool:
    """Whether a start script has to look up what only the host knows (HOST_INTERFACE …)."""
    values = [*node.env.values(), *node.command]
    for server in node.servers:
        values += [*server.own_env.values(), *server.own_args]
    return any(what in value for value in values)


def command_lines(words: Sequence[str]) -> list[list[str]]:
    """A command's words in lines that a person reads: a flag with its values on each."""
    lines: list[list[str]] = [[]]
    for word in words:
        if word.startswith("--") and lines[-1]:
            lines.append([])
        lines[-1].append(word)
    return lines


@lru_cache(maxsize=1)
def _environment() -> Any:
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # shell, not HTML: every value goes through the sh filter
    )
    made.filters["sh"] = quote
    made.filters["lines"] = command_lines
    return made


def template(name: str, **values: Any) -> str:
    """A template of templates/ with its holes filled; an unknown hole is an error."""
    return str(_environment().get_template(name).render(**values))


def start_script(
    environment: str,
    node: NodePlan,
    profile: Optional[Profile] = None,
    secrets: str = "",
    cache: str = "",
) -> str:
    """The start script of one node: runs by hand, and the same in a container.

    profile: what it loads first. secrets: the file with the node's, where it has some. cache: the
    file that says which folder has what its servers compile.
    """
    return template(
        "start_node.sh.j2",
        environment=environment,
        node=node,
        secrets=secrets if node.secrets else "",
        look_up=uses(node, HOST_INTERFACE),
        cache=cache if uses(node, HOST_CACHE) else "",
        load=loading(profile, f"container {node.container}") if profile else "",
    )
