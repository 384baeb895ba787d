#!/usr/bin/env bash
# Starts a container for the engine, with the install guide's flags unless settings say otherwise.
# Changes nothing when it runs as wanted; one made differently is made anew and the difference named.
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
# shellcheck source=scripts/_lib.sh
. "$here/_lib.sh"
run_command "$here" start_container "$@"
