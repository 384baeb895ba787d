#!/usr/bin/env bash
# generated from environment qwen2.5 for node s0: a change here is lost with the next deploy
# Starts one API server of s0 (colocated) in the foreground. It may run again once the first has ended.
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
  local -a own
  export VLLM_USE_V1=1
  export VLLM_WORKER_MULTIPROC_METHOD=fork
  export ASCEND_RT_VISIBLE_DEVICES=0
  export GLOO_SOCKET_IFNAME="$interface"
  export TP_SOCKET_IFNAME="$interface"
  export HCCL_IF_BASE_PORT=20000
  export VLLM_ENABLE_MC2=0
  export USING_LCCL_COM=0
  export VLLM_LOGGING_LEVEL=DEBUG
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
  mkdir -p /tmp/omnikit-HASH/s0
  exec vllm serve /data/Qwen2.5-0.5B-Instruct \
    --trust-remote-code \
    --gpu-memory-utilization 0.9 \
    --block_size 128 \
    --tensor-parallel-size 1 \
    --data-parallel-size 1 \
    --port 8300 \
    --served-model-name qwen \
    --max-model-len 4096 \
    --host 0.0.0.0 \
    --distributed-executor-backend mp \
    --dtype bfloat16 \
    --enforce-eager \
    --max-num-batched-tokens 20000 \
    --max-num-seqs 128 \
    "${own[@]}"
}

main "$@"
