#!/usr/bin/env bash
# The former names of shell scripts are links to this file: see _renamed.py, which goes on.
set -euo pipefail
exec python3 "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/_renamed.py" "${BASH_SOURCE[0]}" "$@"
