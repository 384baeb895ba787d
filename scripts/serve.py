#!/usr/bin/env python3
"""Start one co-located server (prefill and decode not separated) and show how to ask it.

Runs on the control host. The same as deploy.py --environment colocated.
"""

from __future__ import annotations

import sys
from functools import partial

import deploy

from omnikit.front.script import Script

main = Script(
    __doc__,
    deploy.body,
    partial(deploy.arguments, environment="colocated"),
    example="python scripts/serve.py --set ports.api=8301",
)


if __name__ == "__main__":
    sys.exit(main())
