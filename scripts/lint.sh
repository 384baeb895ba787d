#!/usr/bin/env bash
# Check format, style, types, shell, YAML and playbooks.
# All that can be checked without running it. Changes nothing, may run at any time.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: lint.sh
Check format and style (ruff), types (mypy), shell (shellcheck), Dockerfiles (hadolint), YAML
(yamllint) and playbooks (ansible-lint, on Python 3.11). Exit status 1 when anything was found.
example: scripts/lint.sh
USAGE
}

failed=0

check() { # check NAME COMMAND...: run one linter, remember whether it complained
  local name=$1
  shift
  printf '== %s\n' "$name" >&2
  "$@" || failed=1
}

main() {
  local bin shell_files
  case ${1:-} in
    '') ;;
    -h | --help)
      usage
      return 0
      ;;
    *)
      usage >&2
      return 2
      ;;
  esac
  cd "$(dirname "${BASH_SOURCE[0]}")/.."
  bin=$PWD/.venv/bin
  export PATH=$bin:$PATH ANSIBLE_CONFIG=$PWD/scripts/fleet/ansible.cfg
  mapfile -t shell_files < <(git ls-files --cached --others --exclude-standard -- '*.sh' .ci/run)
  check 'ruff format' "$bin/ruff" format --check --diff .
  check 'ruff check' "$bin/ruff" check .
  check 'mypy' "$bin/mypy"
  PYTHONPATH=scripts check 'import-linter' "$bin/lint-imports"
  check 'shellcheck' shellcheck "${shell_files[@]}"
  check 'hadolint' "$bin/hadolint" --config docker/.hadolint.yaml docker/*/Dockerfile
  check 'yamllint' "$bin/yamllint" --strict configs docs mkdocs.yml scripts/fleet \
    .yamllint.yaml
  if [ -x "$bin/ansible-lint" ]; then
    check 'ansible-lint' "$bin/ansible-lint" --offline --profile production \
      scripts/fleet/*.yml
  fi
  return "$failed"
}

main "$@"
