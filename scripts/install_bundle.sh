#!/usr/bin/env bash
# Verifies an offline bundle, all of it, and only then sets the toolkit up from it; asks no network.
# Lies in every bundle as install.sh. May run twice: what is there already is finished.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: install.sh (--key FILE | --digest SHA256) [--only-verify] [FOLDER]
Verify the bundle that this script lies in, and set the toolkit up in FOLDER, new or empty.
--key FILE       public key (PEM) of who made the bundle, got by another way than the bundle
--digest SHA256  in place of a key: the digest of SHA256SUMS that invoke bundle printed
PYTHON names the interpreter; its version must be that of the bundle's wheels.
exit codes: 0 done, 1 a step failed, 2 misuse or a bundle that is not what was made: nothing changed
example: bash install.sh --key our-key.pem /opt/omnikit
USAGE
}

die() { # die WHAT TODO [EXIT_CODE]
  printf 'error: %s\n  What to do: %s\n' "$1" "$2" >&2
  exit "${3:-2}"
}

digest_of() { sha256sum <"$1" | cut -d ' ' -f 1; }

trust() { # trust KEY DIGEST: that SHA256SUMS is what its maker wrote
  local found key
  [ -f SHA256SUMS ] || die "$PWD/SHA256SUMS is missing." "copy the whole bundle again"
  found=$(digest_of SHA256SUMS)
  if [ -z "$1$2" ]; then
    die "it is not said what to trust; the digest of SHA256SUMS is $found." \
      "have its maker say the digest and give it: --digest SHA256; or the public key: --key FILE"
  elif [ -n "$2" ]; then
    [ "$found" = "$2" ] || die "SHA256SUMS is not what was made: SHA-256 expected $2, found $found." "$AGAIN"
    [ -f SHA256SUMS.sig ] || return 0
  elif [ ! -f "$1" ]; then
    die "there is no public key $1." "name the file: --key FILE"
  elif [[ $1 == "$PWD"/* ]]; then
    die "a key that lies in the bundle proves nothing." "get the key of its maker by another way"
  elif [ ! -f SHA256SUMS.sig ]; then
    die "the bundle is not signed (there is no SHA256SUMS.sig)." \
      "have its maker say the digest, and give that: --digest SHA256"
  fi
  key=${1:-key.pem}
  openssl dgst -sha256 -verify "$key" -signature SHA256SUMS.sig SHA256SUMS >/dev/null 2>&1 ||
    die "SHA256SUMS.sig is not the signature of SHA256SUMS by $key: expected one of SHA-256 $found,
  found the file SHA256SUMS.sig with SHA-256 $(digest_of SHA256SUMS.sig)." "$AGAIN; or name the right key"
}

verify() { # that every file is the one of SHA256SUMS, and no other is there
  local wrong
  wrong=$(
    find . -mindepth 1 ! -type d ! -type f -printf '%P: is no plain file\n'
    find . -type f ! -path ./SHA256SUMS ! -path ./SHA256SUMS.sig -printf '%P\0' | sort -z |
      xargs -0 sha256sum -- | awk '
        { name = substr($0, 67); sum = substr($0, 1, 64) }
        NR == FNR { want[name] = sum; next }
        !(name in want) { print name ": does not belong to the bundle" }
        { have[name] = sum }
        END {
          for (name in want)
            if (have[name] == "") print name ": is missing, expected SHA-256 " want[name]
            else if (have[name] != want[name])
              print name ": SHA-256 expected " want[name] ", found " have[name]
        }' SHA256SUMS -
  )
  [ -z "$wrong" ] || die "the bundle is not what was made:
$(sort <<<"$wrong" | sed 's/^/  /')" "$AGAIN"
}

set_up() { # set_up FOLDER PYTHON
  local part=$1.part
  if [ -e "$1" ] && ! cmp -s SHA256SUMS "$1/offline/SHA256SUMS"; then
    [ -d "$1" ] && [ -z "$(ls -A "$1")" ] || die "$1 has something else." "name a new folder"
  fi
  if ! [ -e "$1/offline/SHA256SUMS" ]; then
    trap 'rm -rf -- "$part"' EXIT
    rm -rf -- "$part"
    mkdir -p -- "$part/offline"
    tar -xf toolkit.tar -C "$part" --no-same-owner
    cp -R configuration/. "$part/configs"
    # The same files where that can be: an image is large.
    cp -Rl wheels images "$part/offline" 2>/dev/null || cp -R wheels images "$part/offline"
    cp weights.sha256 sbom.json SHA256SUMS "$part/offline"
    mv -T -- "$part" "$1"
    trap - EXIT
  fi
  [ -e "$1/.venv/.toolkit-installed" ] || (cd "$1" && PYTHON=$2 bash scripts/setup_toolkit.sh .venv)
}

main() {
  local key='' digest='' only='' folder='' version machine name python
  AGAIN="nothing was changed; copy the bundle again from where it was made, or have it made again"
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage && return 0 ;;
      --only-verify) only=yes ;;
      --key | --digest)
        [ $# -gt 1 ] || die "$1 needs a value." "see --help"
        if [ "$1" = --key ]; then key=$(realpath -m -- "$2"); else digest=${2,,}; fi
        shift
        ;;
      -*) usage >&2 && return 2 ;;
      *) folder=$(realpath -m -- "$1") ;;
    esac
    shift
  done
  cd "$(dirname "${BASH_SOURCE[0]}")"
  trust "$key" "$digest"
  verify
  printf 'the bundle is whole, and %s\n' "${key:+signed by the key $key}${digest:+that of the digest}" >&2
  [ -z "$only" ] || return 0
  [ -n "$folder" ] || die "no folder is named." "bash install.sh … FOLDER"
  read -r version machine name <target
  [ "$(uname -m)" = "$machine" ] || die "this machine is $(uname -m), the bundle is for $machine." \
    "make one on a machine like this"
  python=${PYTHON:-python$version}
  [ "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>&1)" = "$version" ] ||
    die "the bundle's wheels are for Python $version, and $python is not that." \
      "name one: PYTHON=/path/to/python$version bash install.sh …; or make the bundle with another"
  set_up "$folder" "$python"
  printf 'the toolkit is in %s; next:\n' "$folder" >&2
  printf 'make -C %q deploy ENVIRONMENT=%q\n' "$folder" "$name"
}

main "$@"
