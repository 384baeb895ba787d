"""Small settings files for tests: written, loaded and planned as a user's would be."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence, Union

from omnikit.config import config
from omnikit.config.config import Config
from omnikit.plan.types import Plan
from omnikit.topology.topology import make_plan

# A small fleet with NPUs: every test below states what it adds.
FLEET = """
profile: {engine: ascend, omni_version: v0.4.1, model: deepseek-r1-w8a8}
hosts:
  p0: {address: 192.0.2.1}
  p1: {address: 192.0.2.2}
  d0: {address: 192.0.2.3}
  d1: {address: 192.0.2.4}
topology:
  prefill: [{hosts: [p0]}, {hosts: [p1]}]
  decode: [{hosts: [d0, d1]}]
  proxy: p0
"""


def write(folder: Path, text: Union[str, bytes], name: str = "case.yaml") -> Path:
    """A settings file."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def load_site(folder: Path, text: Union[str, bytes], sets: Sequence[str] = ()) -> Config:
    """The default environment with a site file on top."""
    return config.load("local", [str(write(folder, text, "site.yaml"))], sets, environ={})


def load(folder: Path, text: Union[str, bytes], sets: Sequence[str] = ()) -> Config:
    """An environment of its own."""
    return config.load(str(write(folder, text)), (), sets, environ={})


def plan(folder: Path, text: Union[str, bytes], sets: Sequence[str] = ()) -> Plan:
    """An environment's plan."""
    return make_plan(load(folder, text, sets))
