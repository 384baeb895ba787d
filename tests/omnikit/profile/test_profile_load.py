"""The load while servers are profiled, against small real servers: when it ends, and faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Iterator

import pytest
from proxy_backend import Backend
from settings_file import load

from hostkit.base.errors import ActionError, InputError
from omnikit.config.schema import Settings
from omnikit.plan.types import Plan
from omnikit.profile.load import (
    START,
    Demand,
    Load,
    Wave,
    demand,
    drive,
    enough,
    short_lines,
    switch,
    try_one,
)
from omnikit.timeline.progress import Progress
from omnikit.topology.topology import make_plan

ONE = """
profile: {engine: cpu, model: tiny-qwen2}
hosts: {here: {address: 127.0.0.1, connection: local}}
topology: {colocated: [{hosts: [here], api_port: PORT}]}
ports: {ephemeral_low: 65536}
profiling: {requests: 12, concurrency: 2, steps: 5}
"""


class Server:
    """Answers completions, each of which takes three steps, and tells its steps."""

    def __init__(self) -> None:
        self.steps = 0
        self.prompts: list[str] = []
        self.status = 200
        self.backend = Backend("decode", behave=self.answer)

    def metrics(self) -> str:
        return f"vllm:iteration_tokens_total_count {self.steps}.0\n"

    def answer(self, handler, _) -> None:
        if handler.path == "/metrics":
            handler.answer(200, self.metrics())
            return
        self.steps += 3
        handler.answer(self.status, json.dumps({"choices": [{"text": "x"}]}))


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.backend.close()


def site(folder: Path, server: Server, *sets: str) -> tuple[Plan, Settings, Demand]:
    text = ONE.replace("PORT", str(server.backend.address[1]))
    loaded = load(folder, text, sets)
    plan = make_plan(loaded)
    return plan, loaded.settings, demand(loaded, plan, plan.nodes)


def test_it_ends_when_the_steps_are_done(tmp_path: Path, server: Server) -> None:
    plan, settings, needed = site(tmp_path, server)
    made = drive(plan, plan.nodes, settings, needed, Progress())
    assert (made.sent, made.answered, made.steps) == (2, 2, {"s0": 6})
    prompts = [seen.data["prompt"] for seen in server.backend.seen if seen.method == "POST"]
    assert len(set(prompts)) == 2 and prompts[0].count("word") == 64
    assert made.as_data()["steps"] == {"s0": 6}


def test_where_steps_cannot_be_told_all_requests_are_sent(tmp_path: Path, server: Server) -> None:
    plan, settings, needed = site(tmp_path, server, "profiling.step_metric=null")
    assert drive(plan, plan.nodes, settings, needed, Progress()).sent == 12
    plan, settings, needed = site(
        tmp_path, server, "profiling.token_threshold=9", "profiling.start=steps"
    )
    assert drive(plan, plan.nodes, settings, needed, Progress()).sent == 12


def test_no_answer_is_a_failure_with_the_reason(tmp_path: Path, server: Server) -> None:
    server.status = 500
    plan, settings, needed = site(tmp_path, server)
    with pytest.raises(ActionError, match=r"none of 4 requests was answered \(status 500"):
        drive(plan, plan.nodes, settings, needed, Progress())


def test_as_many_requests_are_sent_at_once_as_the_servers_that_lack_steps_need(
    tmp_path: Path, server: Server
) -> None:
    plan, settings, _ = site(tmp_path, server, "profiling.steps=20")
    waves = (Wave(("prefill",), 9, 1), Wave(("colocated",), 3, 1))
    made = drive(plan, plan.nodes, settings, Demand(12, waves, 4, 7), Progress())
    assert made.sent == 9 and made.steps == {"s0": 27}  # waves of 3, until there are 21


def test_a_request_that_is_refused_is_said_before_anything_changes(
    tmp_path: Path, server: Server
) -> None:
    plan, settings, needed = site(tmp_path, server)
    try_one(plan, settings, needed)
    server.status = 400
    with pytest.raises(InputError, match="does not answer a request of the load, 65 words"):
        try_one(plan, settings, needed)


def test_servers_that_took_too_few_steps_are_named(tmp_path: Path, server: Server) -> None:
    _, settings, _ = site(tmp_path, server)
    assert short_lines(Load(steps={"p0": 6, "d0.3": 4, "d0.4": None}), settings) == [
        "d0.3 took 4 of 6 steps: its recording did not end"  # of d0.4 nobody can tell
    ]


def test_a_server_that_shows_no_value_yet_has_taken_no_step(tmp_path: Path, server: Server) -> None:
    plan, settings, needed = site(tmp_path, server)
    shown = "# HELP vllm:iteration_tokens_total Tokens\n"
    server.metrics = lambda: shown
    made = drive(plan, plan.nodes, settings, needed, Progress())
    assert made.sent == 12 and short_lines(made, settings) == [
        "s0 took 0 of 6 steps: its recording did not end"
    ]
    server.metrics = lambda: "busy"
    assert short_lines(drive(plan, plan.nodes, settings, needed, Progress()), settings) == []


def test_a_server_without_the_endpoint_names_the_setting(tmp_path: Path, server: Server) -> None:
    plan, settings, _ = site(tmp_path, server)
    switch(START, plan.nodes, settings)
    server.status = 404
    with pytest.raises(ActionError, match="s0 has no /start_profile") as raised:
        switch(START, plan.nodes, settings)
    assert "profiling.server" in str(raised.value)
    server.status = 500
    with pytest.raises(ActionError, match="s0 does not answer /start_profile: status 500"):
        switch(START, plan.nodes, settings)
    server.backend.close()
    with pytest.raises(ActionError, match="ConnectionRefusedError"):
        switch(START, plan.nodes, settings)


def test_every_server_must_have_done_its_steps(tmp_path: Path, server: Server) -> None:
    _, settings, _ = site(tmp_path, server)
    assert enough(Load(steps={"p0": 6, "d0": 7}), settings)
    assert not enough(Load(steps={"p0": 5, "d0": 7}), settings)
    assert not enough(Load(steps={"p0": None}), settings)
