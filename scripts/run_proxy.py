#!/usr/bin/env python3
"""Do the deployment's step run_proxy alone: with real requests at its end.

Runs on the control host. The same as deploy.py --tags run_proxy, with its other options.
"""

from __future__ import annotations

import sys

import deploy

main = deploy.step(__doc__, "run_proxy")


if __name__ == "__main__":
    sys.exit(main())
