#!/usr/bin/env python3
"""Fetch omni-infer and vLLM and build their wheels.

Runs on the control host, or on any host by hand, with the other options of build_from_source.py:
the same as build_from_source.py --only fetch --only build.
"""

from __future__ import annotations

import sys

import build_from_source

main = build_from_source.alone(__doc__, "build_wheels", "fetch", "build")


if __name__ == "__main__":
    sys.exit(main())
