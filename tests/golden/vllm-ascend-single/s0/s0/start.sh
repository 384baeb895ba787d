#!/usr/bin/env bash
# generated from environment vllm-ascend-single for node s0: a change here is lost with the next deploy
# Starts one API server of s0 (colocated) in the foreground. It may run again once the first has ended.
case ${1:-} in
-h | --help) ;;
*)
# All that runs inside loads this file first: it alone sets up the image's environment.
omnikit_file=/etc/profile
omnikit_fail() {
  trap - EXIT
  printf 'error: %s: %s.%s\n' 'container omnikit_vllm-ascend-single_s0' "$1" \
    ' What to do: name the file that sets up the environment of this image (container.profile; null: it needs none), take an image that has it, or mount what it lacks (container.mounts: the driver)' >&2
  exit 78
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
[ "$PWD" = "$omnikit_folder" ] || builtin cd -- "$omnikit_folder" || exit 78
set -- "${omnikit_words[@]}"
omnikit_library=libascendcl.so
omnikit_said=$(python3 -I -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' \
  "$omnikit_library" 2>&1 </dev/null) || {
  omnikit_said="exit status $?: ${omnikit_said##*$'\n'}"
  omnikit_text=$(<"$omnikit_file")
  if [[ $omnikit_text == *return* ]]; then
    omnikit_text=${omnikit_text%%return*}
    omnikit_text=${omnikit_text//[!$'\n']/}
    omnikit_said+="; a shell that is not interactive perhaps leaves the file early, at the return"
    omnikit_said+=" in line $((${#omnikit_text} + 1))"
  fi
  omnikit_fail "$omnikit_file was loaded, but then $omnikit_library cannot be ($omnikit_said)"
}
  ;;
esac
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: start.sh [RANK]
Start API server RANK (0; default 0) of s0 in the foreground; Ctrl-C ends it.
USAGE
}

# The interface of the default route: what Gloo and HCCL talk over.
default_interface() {
  local found
  found=$(ip -4 -o route show default | sed -n 's/.* dev \([^ ]*\).*/\1/p' | head -n 1)
  if [ -z "$found" ]; then
    printf 'error: this host has no default route. What to do: set hosts.<name>.interface\n' >&2
    exit 1
  fi
  printf '%s\n' "$found"
}

main() {
  local rank=${1:-0}
  local interface
  interface=$(default_interface)
  local cache # the folder of what was compiled before, which this host has chosen
  cache=$(</data/omnikit/caches/of/s0)
  local -a own
  export ASCEND_RT_VISIBLE_DEVICES=0,1,2,3
  export VLLM_HOST_IP=192.0.2.11
  export HCCL_IF_IP=192.0.2.11
  export HCCL_SOCKET_IFNAME="$interface"
  export GLOO_SOCKET_IFNAME="$interface"
  export TP_SOCKET_IFNAME="$interface"
  export HCCL_IF_BASE_PORT=28000
  export PYTORCH_NPU_ALLOC_CONF=expandable_segments:True
  export TASK_QUEUE_ENABLE=1
  export HCCL_OP_EXPANSION_MODE=AIV
  export VLLM_CACHE_ROOT="$cache"/VLLM_CACHE_ROOT
  export TRITON_CACHE_DIR="$cache"/TRITON_CACHE_DIR
  case $rank in
    0)
      own=()
      ;;
    -h | --help)
      usage
      exit 0
      ;;
    *)
      usage >&2
      exit 2
      ;;
  esac
  mkdir -p /data/omnikit/run/s0
  exec vllm serve /data/models/Qwen3-32B-W8A8 \
    --host 192.0.2.11 \
    --port 9200 \
    --served-model-name qwen3-32b \
    --tensor-parallel-size 4 \
    --trust-remote-code \
    --quantization ascend \
    --max-model-len 5500 \
    --max-num-batched-tokens 40960 \
    --gpu-memory-utilization 0.9 \
    --distributed-executor-backend mp \
    --async-scheduling \
    --compilation-config '{"cudagraph_mode": "FULL_DECODE_ONLY"}' \
    --additional-config '{"enable_flashcomm1": true}' \
    "${own[@]}"
}

main "$@"
