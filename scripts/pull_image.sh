#!/usr/bin/env bash
# Has a container image on this machine, or on all hosts of an environment: pulled, exported into an
# archive, or loaded from one. Changes the container engine's images. May run twice: what is there
# and current is left alone.
set -euo pipefail

here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
# shellcheck source=scripts/_lib.sh
. "$here/_lib.sh"

run_command "$here" pull_image "$@"
