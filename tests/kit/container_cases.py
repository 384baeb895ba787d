"""Specs of small containers for the tests."""

from __future__ import annotations

from typing import Any

from docker_host import BASE_IMAGE


def small_spec(name: str, **changes: Any) -> dict[str, Any]:
    """A container of the base image that any machine can run."""
    return {
        "name": name,
        "engine": "docker",
        "grace_s": 1,
        "profile": None,
        "owner": "test",
        "image": BASE_IMAGE,
        "shm_size": "16m",
        "network": "host",
        "privileged": False,
        "user": "root",
        "workdir": "/",
        "entrypoint": "bash",
        "interactive": True,
        "init": False,
        "devices": [],
        "mounts": [],
        "env": {},
        "args": [],
        **changes,
    }
