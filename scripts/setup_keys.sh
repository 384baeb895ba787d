#!/usr/bin/env bash
# Makes an SSH key if there is none, records the hosts' own keys, puts the public key on every host of
# an environment, and proves that all of them answer without a password. A second run changes nothing.
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
# shellcheck source=scripts/_lib.sh
. "$here/_lib.sh"
run_command "$here" setup_keys "$@"
