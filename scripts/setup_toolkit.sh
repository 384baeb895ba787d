#!/usr/bin/env bash
# Makes the toolkit's own virtual environment with pinned dependencies. May run twice: the second
# time it only checks. The CPU engine is installed apart from it (scripts/install_engine.py).
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: setup_toolkit.sh [--dev] [DIR]
Install the toolkit's dependencies into the virtual environment DIR (default .venv); with --dev also
what tests and linting need. PYTHON names the interpreter (3.9 to 3.11; default: the first found).
example: PYTHON=python3.11 scripts/setup_toolkit.sh .venv
USAGE
}

die() {
  printf 'error: %s\n' "$1" >&2
  printf '  What to do: %s\n' "$2" >&2
  exit "${3:-1}"
}

fits() {
  "$1" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))' 2>/dev/null
}

find_python() {
  local name
  for name in "${PYTHON:-python3}" python3.11 python3.10 python3.9; do
    if fits "$name"; then
      printf '%s\n' "$name"
      return 0
    fi
  done
  return 1
}

link_omni_cli() { # link_omni_cli VENV ROOT: omni-infer's command, in the virtual environment
  local line
  line=$(printf 'exec %q %q "$@"' "$(cd "$1" && pwd)/bin/python" "$2/scripts/omni_cli.py")
  printf '#!/usr/bin/env bash\n%s\n' "$line" >"$1/bin/omni_cli"
  chmod 755 "$1/bin/omni_cli"
}

main() {
  local extras='' dir=.venv python root log
  while [ $# -gt 0 ]; do
    case $1 in
      --dev) extras='[dev]' ;;
      -h | --help)
        usage
        return 0
        ;;
      -*)
        usage >&2
        return 2
        ;;
      *) dir=$1 ;;
    esac
    shift
  done
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  if ! fits "$dir/bin/python"; then
    python=$(find_python) || die "no Python 3.9 to 3.11 was found (${PYTHON:-python3} is $("${PYTHON:-python3}" --version 2>&1))." \
      "install one, then: make PYTHON=/path/to/python3.11 deploy" 2
    printf 'making the virtual environment %s with %s\n' "$dir" "$("$python" --version)" >&2
    "$python" -m venv --clear "$dir" || die "the virtual environment could not be made." \
      "install venv (Debian, Ubuntu: apt-get install python3-venv)"
  fi
  printf 'installing the toolkit%s into %s (a minute the first time)\n' "$extras" "$dir" >&2
  log=$dir/install.log
  if ! "$dir/bin/python" -m pip install --disable-pip-version-check --no-input \
    --editable "$root$extras" >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    die "the toolkit's dependencies could not be installed (whole log: $log)." \
      "check that the package index is reachable, then run this again"
  fi
  link_omni_cli "$dir" "$root"
}

main "$@"
