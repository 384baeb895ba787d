# shellcheck shell=bash
# What the shell scripts share; sourced, never run.

die() { # die WHAT TODO [EXIT_CODE]
  printf 'error: %s\n  What to do: %s\n' "$1" "$2" >&2
  exit "${3:-1}"
}

PYTHONS=(python3.11 python3.13 python3.12) # 3.11 first: the CPU engine needs it

fits() { # whether this Python can run the toolkit
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

toolkit_python() { # print the toolkit's Python: its virtual environment's, else the system's
  local scripts=$1 name
  for name in "${OMNIKIT_PYTHON:-$scripts/../.venv/bin/python}" python3 "${PYTHONS[@]}"; do
    if fits "$name"; then
      printf '%s\n' "$name"
      return 0
    fi
  done
  die "no Python 3.11 to 3.13 was found." "install one, then run: $scripts/setup_toolkit.sh" 2
}

run_command() { # run_command SCRIPTS_DIR MODULE ARGUMENT...: hand over to omnikit.commands.MODULE
  local scripts=$1 module=$2 python
  shift 2
  python=$(toolkit_python "$scripts")
  PYTHONPATH=$scripts exec "$python" -m "omnikit.commands.$module" "$@"
}
