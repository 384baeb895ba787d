"""Whose twin this is: what release.json beside this says (tests/twin/*.json).

engine: whose rules a start follows. version: vLLM's. no_cann: what it dies of without CANN's
libraries. kv_usage: a metric's name. tells_sources: its metrics say where prompts' KV came from.
transfer_log: the place that a hand-over that failed is logged from.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RELEASE: dict[str, Any] = json.loads(Path(__file__).with_name("release.json").read_text())
