"""Jobs on hosts: what becomes of each, and how failures are told."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from hostkit.base.errors import ActionError, InputError
from omnikit.config import config
from omnikit.fleet import jobs
from omnikit.fleet.jobs import Done
from omnikit.topology.topology import make_plan


def event(kind: str, **fields: Any) -> dict[str, Any]:
    base = {"event": kind, "host": "p0", "task": jobs.TASK, "stdout": "", "stderr": "", "msg": ""}
    return {**base, **fields}


def test_a_job_of_this_machine_is_done_here(tmp_path: Any) -> None:
    loaded = config.load("local", environ={})
    seen = []
    found = jobs.run(
        make_plan(loaded),
        loaded.settings,
        "unlock",
        {"local": {"work_dir": str(tmp_path), "owner": "me"}},
        on_done=lambda host, done: seen.append(host),
    )
    assert jobs.results(found) == {"local": {"changed": False, "lock": None}}
    assert seen == ["local"]


def test_an_unknown_job_is_an_error_of_the_host_not_a_crash() -> None:
    loaded = config.load("local", environ={})
    found = jobs.run(make_plan(loaded), loaded.settings, "no-such", {"local": {}})
    with pytest.raises(InputError, match="no job 'no-such'"):
        jobs.results(found)


def test_parameters_have_nothing_that_looks_like_a_template() -> None:
    text = jobs.encode({"a": "{{ lookup('pipe', 'id') }}", "b": "中文"})
    assert "{" not in text
    assert json.loads(base64.b64decode(text))["b"] == "中文"


def test_the_last_line_is_the_answer() -> None:
    done = jobs._outcome(event("ok", stdout='something said\n{"changed": true}\n'))
    assert done == Done(result={"changed": True})
    unreadable = jobs._outcome(event("ok", stdout="nothing of the kind"))
    assert unreadable is not None and "cannot be read" in str(unreadable.error)


def test_other_steps_are_not_the_job() -> None:
    assert jobs._outcome(event("ok", task="Ship the code")) is None
    assert jobs._outcome(event("task")) is None


def test_failures_name_their_hosts_and_keep_their_kind() -> None:
    bad = Done(error=InputError("too little space."))
    cut = Done(error=ActionError("the line was cut."))
    fine = Done(result={})
    with pytest.raises(InputError, match="host p1: too little space"):
        jobs.results({"p0": fine, "p1": bad})
    with pytest.raises(
        ActionError, match=r"host p0: too little space\.\nhost p1: the line"
    ) as caught:
        jobs.results({"p0": bad, "p1": cut})
    assert caught.value.exit_code == 1
