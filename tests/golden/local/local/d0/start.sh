#!/usr/bin/env bash
# generated from environment local for node d0: a change here is lost with the next deploy
# Starts one API server of d0 (decode) in the foreground. It may run again once the first has ended.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: start.sh [RANK]
Start API server RANK (0; default 0) of d0 in the foreground; Ctrl-C ends it.
USAGE
}

main() {
  local rank=${1:-0}
  local -a own
  export VLLM_CPU_OMP_THREADS_BIND=nobind
  export VLLM_ENABLE_V1_MULTIPROCESSING=0
  export OMP_NUM_THREADS=1
  export HF_HUB_OFFLINE=1
  export TRANSFORMERS_OFFLINE=1
  export VLLM_NO_USAGE_STATS=1
  export DO_NOT_TRACK=1
  export no_proxy=127.0.0.1,localhost
  export TORCH_COMPILE_DISABLE=1
  export VLLM_CACHE_ROOT=/PROJECT/build/engine-cpu/vllm-cache
  export TMPDIR=/var/lib/omnikit/HASH/d0
  export UCX_NET_DEVICES=lo
  export VLLM_NIXL_SIDE_CHANNEL_HOST=127.0.0.1
  export VLLM_NIXL_SIDE_CHANNEL_PORT=5700
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
  mkdir -p /var/lib/omnikit/HASH/d0
  exec /PROJECT/build/engine-cpu/bin/python -m vllm.entrypoints.openai.api_server \
    --model /PROJECT/build/models/tiny-qwen2 \
    --host 127.0.0.1 \
    --port 9100 \
    --served-model-name tiny \
    --dtype float32 \
    --max-model-len 4096 \
    --max-num-seqs 16 \
    --max-num-batched-tokens 4096 \
    --block-size 128 \
    --kv-cache-memory-bytes 67108864 \
    --enforce-eager \
    --no-enable-prefix-caching \
    --kv-transfer-config '{"kv_connector": "NixlConnector", "kv_role": "kv_consumer", "kv_buffer_device": "cpu", "kv_load_failure_policy": "recompute"}' \
    "${own[@]}"
}

main "$@"
