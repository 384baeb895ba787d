"""Ansible's output as JSON lines, one per event, for the toolkit to turn into progress."""

from __future__ import annotations

import json
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: omnikit_events
type: stdout
short_description: events as JSON lines
description: [One JSON object per task start, host result, retry and recap, on standard output.]
extends_documentation_fragment: [default_callback]
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Prints what happened to whom, with the host script's own JSON where there is one."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "omnikit_events"

    def _emit(self, event: str, **fields: Any) -> None:
        print(json.dumps({"event": event, "time": time.time(), **fields}), flush=True)

    def _result(self, event: str, result: Any) -> None:
        data = result._result
        fields = {
            "host": result._host.get_name(),
            "task": result._task.get_name(),
            "changed": bool(data.get("changed")),
            "rc": data.get("rc"),
            "stdout": data.get("stdout", ""),
            "stderr": data.get("stderr", ""),
            "msg": str(data.get("msg", "")),
        }
        self._emit(event, **fields)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._emit("task", task=task.get_name())

    def v2_runner_on_ok(self, result: Any) -> None:
        self._result("ok", result)

    def v2_runner_retry(self, result: Any) -> None:
        self._result("retry", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._result("failed", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._result("unreachable", result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        hosts = {name: stats.summarize(name) for name in stats.processed}
        self._emit("recap", hosts=hosts)
