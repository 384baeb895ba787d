"""Installs what tests need and this machine lacks, as root on Debian and Ubuntu; or says what.

make test and make test-fast begin with it (PYTHONPATH=scripts:tests/kit). It always ends well:
tests whose needs are not met are left out, and their run says so at its end.
"""

from __future__ import annotations

import argparse

from needs import TOOLS, here, remedy

from hostkit.base import log
from hostkit.base.errors import ToolkitError
from omnikit.fleet import apt


def lacking(fast: bool) -> list[str]:
    """Names of the tools that are not here. fast: only what fast tests need."""
    return [name for name, tool in TOOLS.items() if (tool.fast or not fast) and not here(name)]


def main() -> None:
    """Look, say, install."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--fast", action="store_true", help="only what fast tests need")
    fast = made.parse_args().fast
    missing = lacking(fast)
    if not missing:
        return
    log.say(f"tests need what is not here: {', '.join(missing)}")
    try:
        against = apt.forbidden() or _install(sorted({TOOLS[name].apt for name in missing}))
    except ToolkitError as error:
        against = str(error)
    if left := lacking(fast):
        log.say(f"tests that need {', '.join(left)} are left out: {against}")
        for line in remedy(left, "make test-fast" if fast else "make test"):
            log.say(f"  {line}")


def _install(names: list[str]) -> str:
    found = apt.available(names, report=log.say)
    if found:
        apt.install(found, report=log.say)
    return f"apt-get finds no {', '.join(sorted(set(names) - set(found)))} here"


if __name__ == "__main__":
    main()
