#!/usr/bin/env python3
"""Do the deployment's step pip_install alone: packages of the source's copies, where needed.

Runs on the control host. The same as deploy.py --tags pip_install, with its other options.
"""

from __future__ import annotations

import sys

import deploy

main = deploy.step(__doc__, "pip_install")


if __name__ == "__main__":
    sys.exit(main())
