#!/usr/bin/env bash
# Makes the toolkit's own virtual environment with pinned dependencies. May run twice: the second
# time it only checks. The CPU engine is installed apart from it (scripts/install_engine.py).
set -euo pipefail

# shellcheck source=scripts/_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"

PYTHONS=(python3.11 python3.13 python3.12) # 3.11 first: the CPU engine needs it

usage() {
  cat <<'USAGE'
usage: setup_toolkit.sh [--dev] [DIR]
Install the toolkit's dependencies into the virtual environment DIR (default .venv); with --dev also
what tests and linting need. Only files with the check sums of requirements.txt are installed.
PYTHON names the interpreter (3.11 to 3.13; default: the first found).
example: PYTHON=python3.12 scripts/setup_toolkit.sh .venv
USAGE
}

find_python() { # print the first that fits; uv may have one that is not on the PATH
  local name
  for name in "${PYTHON:-python3}" "${PYTHONS[@]}" "$(uv python find --no-python-downloads '>=3.11,<3.14' 2>/dev/null)"; do
    if [ -n "$name" ] && fits "$name"; then
      printf '%s\n' "$name"
      return 0
    fi
  done
  return 1
}

remedy() { # what brings a Python that fits, on this system
  local system
  # shellcheck disable=SC1090
  system=$(. "${OS_RELEASE:-/etc/os-release}" 2>/dev/null && printf '%s-%s' "${ID:-}" "${VERSION_ID:-}") || true
  case $system in
    debian-1[2-9] | ubuntu-2[4-9].*) echo 'as root: apt-get install python3 python3-venv' ;;
    ubuntu-22.04) echo 'as root: apt-get install python3.11 python3.11-venv' ;;
    rhel-[89]* | rocky-[89]* | almalinux-[89]* | centos-9) echo 'as root: dnf install python3.12' ;;
    openEuler-2[4-9].*) echo 'as root: dnf install python3' ;;
    *) echo 'python3 -m pip install --user uv && python3 -m uv python install 3.12 (UV_PYTHON_INSTALL_MIRROR names a mirror); or deploy from the image of docker/control' ;;
  esac
}

link_omni_cli() { # link_omni_cli VENV ROOT: omni-infer's command, in the virtual environment
  local line
  line=$(printf 'exec %q %q "$@"' "$(cd "$1" && pwd)/bin/python" "$2/scripts/omni_cli.py")
  printf '#!/usr/bin/env bash\n%s\n' "$line" >"$1/bin/omni_cli"
  chmod 755 "$1/bin/omni_cli"
}

main() {
  local lock=requirements.txt dir=.venv python root log from=()
  while [ $# -gt 0 ]; do
    case $1 in
      --dev) lock=requirements-dev.txt ;;
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
    python=$(find_python) || die "no Python 3.11 to 3.13 was found (${PYTHON:-python3} is $("${PYTHON:-python3}" --version 2>&1))." \
      "$(remedy); then: make deploy, with PYTHON=/path/to/python if it is not on the PATH" 2
    printf 'making the virtual environment %s with %s\n' "$dir" "$("$python" --version)" >&2
    "$python" -m venv --clear "$dir" || die "the virtual environment could not be made." \
      "install venv (Debian, Ubuntu: apt-get install python3-venv)"
  fi
  rm -f "$dir/.toolkit-installed" # what is not finished is used by no script
  printf 'installing %s into %s (a minute the first time)\n' "$lock" "$dir" >&2
  log=$dir/install.log
  if [ -d "$root/offline/wheels" ]; then # of an offline bundle: no index is asked
    from=(--no-index --find-links "$root/offline/wheels")
  fi
  # A site's constraints choose no other file than the locked one.
  if ! PIP_CONSTRAINT=/dev/null "$dir/bin/python" -m pip install --disable-pip-version-check --no-input \
    --require-hashes --only-binary=:all: ${from[@]+"${from[@]}"} -r "$root/$lock" >"$log" 2>&1; then
    if grep -A 9 'DO NOT MATCH THE HASHES' "$log" >&2; then
      die "the package index has another file than the one that $lock locks (whole log: $log)." \
        "do not install it; ask who runs the index (pip config list) what they changed"
    fi
    tail -n 5 "$log" >&2
    die "the toolkit's dependencies could not be installed (whole log: $log)." \
      "check that the package index is reachable, then run this again"
  fi
  link_omni_cli "$dir" "$root"
  touch "$dir/.toolkit-installed"
}

main "$@"
