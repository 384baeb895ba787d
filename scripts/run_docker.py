#!/usr/bin/env python3
"""Do the deployment's step run_docker alone: the image and the containers.

Runs on the control host. The same as deploy.py --tags run_docker, with its other options.
"""

from __future__ import annotations

import sys

import deploy

main = deploy.step(__doc__, "run_docker")


if __name__ == "__main__":
    sys.exit(main())
