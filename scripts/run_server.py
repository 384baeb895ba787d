#!/usr/bin/env python3
"""Do the deployment's step run_server alone: the servers, not the proxy.

Runs on the control host. The same as deploy.py --tags run_server, with its other options.
"""

from __future__ import annotations

import sys

import deploy

main = deploy.step(__doc__, "run_server")


if __name__ == "__main__":
    sys.exit(main())
