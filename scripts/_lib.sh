# shellcheck shell=bash
# What the shell scripts share; sourced, never run.

die() { # die WHAT TODO [EXIT_CODE]
  printf 'error: %s\n  What to do: %s\n' "$1" "$2" >&2
  exit "${3:-1}"
}

fits() { # whether this Python can run the toolkit
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}
