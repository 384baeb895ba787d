#!/usr/bin/env python3
"""Check that omni_infer, vllm and omni_placement are installed, and in which version.

Runs on the control host, or on any host by hand, with the other options of build_from_source.py:
the same as build_from_source.py --only check.
"""

from __future__ import annotations

import sys

import build_from_source

main = build_from_source.alone(__doc__, "check_packages", "check")


if __name__ == "__main__":
    sys.exit(main())
