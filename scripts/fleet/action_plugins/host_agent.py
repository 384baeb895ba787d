"""The Ansible action that runs the toolkit's agent on a host: one SSH command for each host.

Ansible's own copy and command modules take a Python program of Ansible's to the host for each step
of theirs, and several SSH commands: with many hosts that is most of the time of a deployment.
"""

from __future__ import annotations

import base64
import shlex
from pathlib import Path
from typing import Any, Optional, Sequence

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

_RECEIVE = Path(__file__).resolve().parents[2] / "hostkit" / "agent" / "receive.py"
# Exit status of a task that no longer waits; 3 of the agent means not yet.
_NOT_YET, _GIVEN_UP = 3, 4
_RUN = "OMNIKIT_RUN"  # as in hostkit.base.lock
_SHIPPED = "omnikit: shipped\n"  # the first line of hostkit/agent/receive.py, where it is new


def command(python: str, agent: str, words: Sequence[str], size: int, mode: str, run: str) -> str:
    """The host's command: the agent that is there, or, with a size, the one that comes by standard
    input, so many bytes in base64. run: who must hold the host's lock; older agents do not ask.
    """
    before = f"{_RUN}={shlex.quote(run)} " if run else ""
    if not size:
        return before + shlex.join([python, agent, *words])
    receive = _RECEIVE.read_text(encoding="utf-8")
    return before + shlex.join([python, "-c", receive, agent, str(size), mode, *words])


class ActionModule(ActionBase):  # type: ignore[misc]
    """Arguments: agent (its path there) and words (its arguments). archive: a file of this machine
    that becomes the agent first; mode: of that. removes: do nothing where this file is not.
    stdin: text for the agent. give_up: a file of this machine that appears when the task fails on
    one host; the others then no longer wait. Result: as of a command, and shipped: whether the
    archive was new.
    """

    _VALID_ARGS = frozenset(("agent", "words", "archive", "mode", "removes", "stdin", "give_up"))

    def run(
        self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None
    ) -> dict[str, Any]:
        """See the class."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = self._task.args
        unknown = set(args) - self._VALID_ARGS
        if unknown or not {"agent", "words"} <= set(args):
            raise AnsibleActionFail(f"host_agent takes {sorted(self._VALID_ARGS)}: {sorted(args)}")
        result.update(rc=0, stdout="", stderr="", shipped=False, changed=False)
        if self._task.check_mode:
            result.update(skipped=True, msg="The agent would have run if not in check mode.")
            return result
        give_up = Path(args["give_up"]) if args.get("give_up") else None
        python = self._templar.template((task_vars or {}).get("ansible_python_interpreter"))
        shipped = b""
        if "archive" in args:
            shipped = base64.b64encode(Path(args["archive"]).read_bytes())
        given = str(args.get("stdin", "")).encode()
        words = [str(word) for word in args["words"]]
        mode = str(args.get("mode", "0600"))
        known = task_vars or {}
        held = known.get("omnikit_held")
        holds = held is None or known.get("inventory_hostname") in str(held).split(",")
        run = str(known.get("omnikit_run", "")) if holds else ""
        line = command(str(python), args["agent"], words, len(shipped), mode, run)
        if "removes" in args:
            line = f"if test -e {shlex.quote(args['removes'])}; then {line}; fi"
        # Never empty: without input Ansible asks for a terminal, which mixes the two outputs.
        result.update(self._low_level_execute_command(line, in_data=shipped + given or b"\n"))
        if result["stdout"].startswith(_SHIPPED):
            result.update(shipped=True, stdout=result["stdout"][len(_SHIPPED) :])
            result["stdout_lines"] = result["stdout"].splitlines()
        result["changed"] = True  # as of any command; the task knows better (changed_when)
        if result["rc"] != 0:
            result.update(failed=True, msg="the agent ended with exit status " + str(result["rc"]))
        if give_up is not None and result["rc"] == _NOT_YET and give_up.exists():
            # Asked first: a host whose servers are ready is good, however late it came to say so.
            msg = "not waited for any longer: servers of another host have failed"
            result.update(rc=_GIVEN_UP, msg=msg)
        elif give_up is not None and result["rc"] not in (0, _NOT_YET):
            give_up.touch()
        return result
