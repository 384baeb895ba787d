"""Likely causes from log lines."""

from __future__ import annotations

import re

import pytest
from omnikit import causes

SAID = {
    "port-in-use": "OSError: [Errno 98] Address already in use",
    "out-of-memory": "RuntimeError: DefaultCPUAllocator: can't allocate memory",
    "no-space": "OSError: [Errno 28] No space left on device",
    "bad-flag": "api_server.py: error: unrecognized arguments: --no-such-flag",
    "no-model": "OSError: /m does not appear to have a file named config.json",
    "truncated-weights": "safetensors_rust.SafetensorError: Error while deserializing header",
    "no-engine": "ModuleNotFoundError: No module named 'vllm'",
    "killed": "exit status -9",
    "too-slow": "not ready within 600 s",
}


@pytest.mark.parametrize("name", SAID)
def test_each_entry_is_found_by_what_engines_say(name: str) -> None:
    found = causes.likely_cause(["INFO all is well", SAID[name]])
    assert found is not None and found.name == name


def test_every_entry_of_the_catalogue_is_tested_and_complete() -> None:
    assert {entry.name for entry in causes.catalogue()} == set(SAID)
    for entry in causes.catalogue():
        re.compile(entry.pattern)
        assert entry.cause.endswith(".") and entry.remedy


def test_ordinary_lines_have_no_cause() -> None:
    assert causes.likely_cause(["INFO: Started server process", "INFO: 200 OK"]) is None


def test_describe_shows_the_dying_servers_lines_cause_and_remedy() -> None:
    node = {
        "node": "p0",
        "reason": None,
        "servers": [
            {"name": "p0", "state": "failed", "exit": 2, "log": "/l", "tail": [SAID["bad-flag"]]}
        ],
    }
    text = causes.describe(node, 15)
    assert "p0 ended with exit status 2" in text
    assert "--no-such-flag" in text
    assert "Likely cause: The engine does not accept one of its flags." in text
    assert "What to do: correct server.args" in text


def test_describe_of_a_missed_deadline() -> None:
    node = {
        "node": "d0",
        "reason": "not ready within 3 s",
        "servers": [
            {"name": "d0", "state": "failed", "exit": -15, "log": "/l", "tail": ["INFO loading"]}
        ],
    }
    text = causes.describe(node, 15)
    assert "d0 not ready within 3 s" in text and "readiness.deadline_s" in text
