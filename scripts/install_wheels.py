#!/usr/bin/env python3
"""Install the built wheels in place of the packages that are there.

Runs on the control host, or on any host by hand, with the other options of build_from_source.py:
the same as build_from_source.py --only install.
"""

from __future__ import annotations

import sys

import build_from_source

main = build_from_source.alone(__doc__, "install_wheels", "install")


if __name__ == "__main__":
    sys.exit(main())
