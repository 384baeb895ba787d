#!/usr/bin/env bash
# generated from environment 2p1d for node p1: a change here is lost with the next deploy
# Starts one API server of p1 (prefill) in the foreground. It may run again once the first has ended.
case ${1:-} in
-h | --help) ;;
*)
# All that runs inside loads this file first: it alone sets up the image's environment.
omnikit_file=/root/.bashrc
omnikit_fail() {
  trap - EXIT
  printf 'error: %s: %s.%s\n' 'container omnikit_2p1d_p1' "$1" \
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
Start API server RANK (0; default 0) of p1 in the foreground; Ctrl-C ends it.
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

enter() { # enter FOLDER: start there, since relative paths in the engine's own files begin there
  cd "$1" 2>/dev/null && return
  printf 'error: there is no folder %s here. What to do: set paths.code_dir to the folder' "$1" >&2
  printf " that has the engine's source, or copy it there: invoke sync-code\n" >&2
  exit 1
}

main() {
  local rank=${1:-0}
  local interface
  interface=$(default_interface)
  local -a own
  export PYTHONPATH=/usr/local/Ascend/CANN-7.7/toolkit/python/site-packages:"${PYTHONPATH:-}"
  export VLLM_USE_V1=1
  export VLLM_WORKER_MULTIPROC_METHOD=fork
  export ASCEND_RT_VISIBLE_DEVICES=0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
  export GLOO_SOCKET_IFNAME="$interface"
  export TP_SOCKET_IFNAME="$interface"
  export HCCL_IF_BASE_PORT=20000
  export GLOBAL_RANK_TABLE_FILE_PATH=/data/omnikit/bundle/ranktable/global/global_ranktable_merge.json
  export RANK_TABLE_FILE_PATH=/data/omnikit/bundle/ranktable/local_ranktable_192.0.2.12_0123456789101112131415.json
  export MODEL_EXTRA_CFG_PATH=/data/omnikit/bundle/p1/model_extra_config.json
  export ROLE=prefill
  export PREFILL_POD_NUM=2
  export DECODE_POD_NUM=1
  export VLLM_LLMDATADIST_ZMQ_PORT=5568
  export LOCAL_DECODE_SERVER_IP_LIST=192.0.2.13,192.0.2.14
  export GLOBAL_DECODE_SERVER_IP_LIST=192.0.2.13,192.0.2.14
  export SERVER_OFFSET=0
  export VLLM_DP_SIZE=1
  export VLLM_DP_RANK=0
  export VLLM_DP_RANK_LOCAL=0
  export VLLM_DP_MASTER_IP=192.0.2.12
  export VLLM_DP_MASTER_PORT=8001
  export VLLM_ENABLE_MC2=1
  export VLLM_LOGGING_LEVEL=INFO
  export USING_LCCL_COM=0
  export OMNI_USE_DSV3=1
  export ENABLE_OVERWRITE_REQ_IDS=0
  export ASCEND_GLOBAL_LOG_LEVEL=3
  export HCCL_OP_EXPANSION_MODE=AIV
  export HCCL_INTRA_ROCE_ENABLE=1
  export HCCL_INTRA_PCIE_ENABLE=0
  export HCCL_CONNECT_TIMEOUT=1800
  export HCCL_EXEC_TIMEOUT=120
  export PYTORCH_NPU_ALLOC_CONF=expandable_segments:True
  export TNG_HOST_COPY=1
  export AUTO_USE_UC_MEMORY=1
  export TASK_QUEUE_ENABLE=2
  export CPU_AFFINITY_CONF=1,npu0:0-1,npu1:40-41,npu2:80-81,npu3:120-121,npu4:160-161,npu5:200-201,npu6:240-241,npu7:280-281
  export PROFILING_NAMELIST=/workspace/omniinfer/omni/adaptors/vllm/patches/profiler_patches/proc_bind/proc_marker_namelist.yml
  case $rank in -h | --help) ;; *) enter /workspace/omniinfer/tools/scripts ;; esac
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
  mkdir -p /data/omnikit/run/p1
  python3 /data/omnikit/scripts/check_placement.py --file /workspace/omniinfer/tests/test_config/config_p.yaml --devices 16
  exec vllm serve /data/models/DeepSeek-R1-W8A8 \
    --trust-remote-code \
    --gpu-memory-utilization 0.92 \
    --block_size 128 \
    --tensor-parallel-size 16 \
    --data-parallel-size 1 \
    --host 192.0.2.12 \
    --port 9001 \
    --served-model-name deepseek \
    --max-model-len 32000 \
    --data-parallel-size-local 1 \
    --data-parallel-address 192.0.2.12 \
    --data-parallel-rpc-port 8001 \
    --kv-transfer-config '{"kv_connector": "AscendHcclConnectorV1", "kv_buffer_device": "npu", "kv_role": "kv_producer", "kv_rank": 1, "engine_id": 1, "kv_parallel_size": 3}' \
    --no-enable-prefix-caching \
    --enable-expert-parallel \
    --disable-log-requests \
    --speculative_config '{"method": "deepseek_mtp", "num_speculative_tokens": 1}' \
    --max-num-batched-tokens 30000 \
    --max-num-seqs 16 \
    --enforce-eager \
    "${own[@]}"
}

main "$@"
