#!/usr/bin/env bash
# Fetches omni-infer and vLLM, builds their wheels, installs and checks them: on this machine, on
# all hosts of an environment, or in a container. Changes the source's folder and the packages of
# one Python. May run twice, each step alone as well: what is there and current is left alone.
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
# shellcheck source=scripts/_lib.sh
. "$here/_lib.sh"
run_command "$here" build_from_source "$@"
