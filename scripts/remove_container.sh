#!/usr/bin/env bash
# Stops and removes a container that start_container.sh made, with what is in it. May run again.
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
# shellcheck source=scripts/_lib.sh
. "$here/_lib.sh"
run_command "$here" end_container --remove "$@"
