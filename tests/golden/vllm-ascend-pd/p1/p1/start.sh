#!/usr/bin/env bash
# generated from environment vllm-ascend-pd for node p1: a change here is lost with the next deploy
# Starts one API server of p1 (prefill) in the foreground. It may run again once the first has ended.
case ${1:-} in
-h | --help) ;;
*)
# All that runs inside loads this file first: it alone sets up the image's environment.
omnikit_file=/etc/profile
omnikit_fail() {
  trap - EXIT
  printf 'error: %s: %s.%s\n' 'container omnikit_vllm-ascend-pd_p1' "$1" \
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
Start API server RANK (0, 1; default 0) of p1 in the foreground; Ctrl-C ends it.
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
  cache=$(</data/omnikit/caches/of/p1)
  local -a own
  export VLLM_HOST_IP=192.0.2.12
  export HCCL_IF_IP=192.0.2.12
  export HCCL_SOCKET_IFNAME="$interface"
  export GLOO_SOCKET_IFNAME="$interface"
  export TP_SOCKET_IFNAME="$interface"
  export HCCL_IF_BASE_PORT=28000
  export VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS=30000
  export HCCL_EXEC_TIMEOUT=204
  export HCCL_CONNECT_TIMEOUT=400
  export OMP_PROC_BIND=false
  export OMP_NUM_THREADS=10
  export PYTORCH_NPU_ALLOC_CONF=expandable_segments:True
  export VLLM_ASCEND_ENABLE_MLAPO=1
  export TASK_QUEUE_ENABLE=1
  export HCCL_OP_EXPANSION_MODE=AIV
  export HCCL_BUFFSIZE=256
  export VLLM_CACHE_ROOT="$cache"/VLLM_CACHE_ROOT
  export TRITON_CACHE_DIR="$cache"/TRITON_CACHE_DIR
  case $rank in
    0)
      export ASCEND_RT_VISIBLE_DEVICES=0,1,2,3,4,5,6,7
      own=(--port 9001 --data-parallel-rank 0)
      ;;
    1)
      export ASCEND_RT_VISIBLE_DEVICES=8,9,10,11,12,13,14,15
      own=(--port 9002 --data-parallel-rank 1)
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
  mkdir -p /data/omnikit/run/p1
  exec vllm serve /data/models/DeepSeek-V3.1-Terminus-w8a8-mtp-QuaRot \
    --host 192.0.2.12 \
    --served-model-name deepseek-v3.1 \
    --tensor-parallel-size 8 \
    --data-parallel-size 2 \
    --data-parallel-address 192.0.2.12 \
    --data-parallel-rpc-port 8001 \
    --kv-transfer-config '{"kv_connector": "MooncakeConnectorV1", "kv_role": "kv_producer", "kv_port": 18000, "kv_connector_extra_config": {"prefill": {"dp_size": 2, "tp_size": 8}, "decode": {"dp_size": 32, "tp_size": 1}}}' \
    --enable-expert-parallel \
    --seed 1024 \
    --max-model-len 40000 \
    --trust-remote-code \
    --quantization ascend \
    --no-enable-prefix-caching \
    --speculative-config '{"method": "mtp", "num_speculative_tokens": 1}' \
    --max-num-batched-tokens 16384 \
    --max-num-seqs 8 \
    --enforce-eager \
    --gpu-memory-utilization 0.9 \
    --additional-config '{"enable_shared_expert_dp": true}' \
    "${own[@]}"
}

main "$@"
