"""Shell text that loads the file that sets up an image's environment (container.profile). Pure.

An image's own variables may lack what its engine needs: that of omni-infer has CANN's in root's
~/.bashrc alone, and no shell reads that file by itself when it runs a command. The file is written
for people who log in, so nothing that it does may harm: it may print, fail, use unset variables,
change the folder, end or replace the shell. What it leaves is checked before anything starts.
"""

from __future__ import annotations

from shlex import quote
from typing import Any, Mapping, Optional, Sequence

from hostkit.base.run import Result

# As in host.json: {"file", "library": what must load afterwards or None, "python": which tries it}.
Profile = Mapping[str, Any]
FAILED = 78  # exit status when the file is missing or does not bring what it must

_TODO = " What to do: "
_OTHER = (
    "name the file that sets up the environment of this image (container.profile; null: it needs"
    " none), take an image that has it, or mount what it lacks (container.mounts: the driver)"
)
_TEXT = r"""# All that runs inside loads this file first: it alone sets up the image's environment.
omnikit_file=%(file)s
omnikit_fail() {
  trap - EXIT
  printf 'error: %%s: %%s.%%s\n' %(place)s "$1" \
    %(todo)s >&2
  exit %(failed)d
}
if [ ! -f "$omnikit_file" ]; then
  [ "$EUID" = 0 ] || omnikit_fail "there is no file $omnikit_file that user $EUID may see"
  omnikit_fail "there is no file $omnikit_file"
elif [ ! -r "$omnikit_file" ]; then
  omnikit_fail "user $EUID cannot read $omnikit_file"
fi
# It may print, fail, change the folder or the arguments; it must not end or replace this shell.
omnikit_words=("$@")
omnikit_folder=$PWD
set --
# shellcheck disable=SC2329  # called by the file
exec() {
  if [ "$BASHPID" != "$$" ]; then
    builtin exec "$@"
  elif [ $# -gt 0 ]; then
    omnikit_fail "$omnikit_file replaces the shell that loads it: exec $*"
  fi
}
trap 'omnikit_fail "$omnikit_file ends the shell that loads it"' EXIT
{
  # shellcheck source=/dev/null
  . "$omnikit_file"
  trap - EXIT DEBUG RETURN ERR
  set +aefuvx +o pipefail +o posix
  unset -f exec
  unalias -a
} </dev/null >&2
[ "$PWD" = "$omnikit_folder" ] || builtin cd -- "$omnikit_folder" || exit %(failed)d
set -- "${omnikit_words[@]}"
"""
# -I: what the file puts into PYTHONPATH may hide Python's own modules.
_CHECK = r"""omnikit_library=%(library)s
omnikit_said=$(%(python)s -I -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' \
  "$omnikit_library" 2>&1 </dev/null) || {
  omnikit_said="exit status $?: ${omnikit_said##*$'\n'}"
  omnikit_text=$(<"$omnikit_file")
  if [[ $omnikit_text == *return* ]]; then
    omnikit_text=${omnikit_text%%%%return*}
    omnikit_text=${omnikit_text//[!$'\n']/}
    omnikit_said+="; a shell that is not interactive perhaps leaves the file early, at the return"
    omnikit_said+=" in line $((${#omnikit_text} + 1))"
  fi
  omnikit_fail "$omnikit_file was loaded, but then $omnikit_library cannot be ($omnikit_said)"
}
"""


def loading(profile: Profile, place: str) -> str:
    """Bash that loads the file, for the top of a script (not of a function). place: for errors.

    Arguments and folder are as before then, no option is set, and what the file prints went to
    standard error. An environment that is not what it must be is said; the exit status is FAILED.
    """
    known = {
        "file": quote(profile["file"]),
        "place": quote(place),
        "python": quote(profile["python"]),
        "library": quote(profile["library"] or ""),
        "failed": FAILED,
        "todo": quote(_TODO + _OTHER),
    }
    return (_TEXT + (_CHECK if profile["library"] else "")) % known


def words(profile: Optional[Profile], place: str, command: Sequence[str]) -> list[str]:
    """A command of a container with the file loaded before it; as it is where there is none."""
    if profile is None:
        return list(command)
    return ["bash", "-c", f'{loading(profile, place)}exec "$@"\n', "bash", *command]


def problem(done: Result) -> Optional[tuple[str, str]]:
    """What was wrong with the environment and what to do; None when the command itself ran."""
    lines = done.err.strip().splitlines()
    if done.code != FAILED or not lines or not lines[-1].startswith("error: "):
        return None
    what, _, todo = lines[-1][len("error: ") :].partition(_TODO)
    # Most often the cause: a file that it loads is not there.
    return "\n".join([what, *(f"  it said: {line}" for line in lines[-5:-1])]), todo
