#!/usr/bin/env bash
# generated from environment 18p1d for node p3: a change here is lost with the next deploy
# Starts one API server of p3 (prefill) in the foreground. It may run again once the first has ended.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: start.sh [RANK]
Start API server RANK (0; default 0) of p3 in the foreground; Ctrl-C ends it.
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
  export ASCEND_RT_VISIBLE_DEVICES=0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
  export GLOO_SOCKET_IFNAME="$interface"
  export TP_SOCKET_IFNAME="$interface"
  export HCCL_IF_BASE_PORT=20000
  export GLOBAL_RANK_TABLE_FILE_PATH=/data/omnikit/bundle/ranktable/global/global_ranktable_merge.json
  export RANK_TABLE_FILE_PATH=/data/omnikit/bundle/ranktable/local_ranktable_192.0.2.14_0123456789101112131415.json
  export MODEL_EXTRA_CFG_PATH=/data/omnikit/bundle/p3/model_extra_config.json
  export ROLE=prefill
  export PREFILL_POD_NUM=18
  export DECODE_POD_NUM=1
  export VLLM_LLMDATADIST_ZMQ_PORT=5568
  export LOCAL_DECODE_SERVER_IP_LIST=192.0.2.29,192.0.2.30,192.0.2.31,192.0.2.32,192.0.2.33,192.0.2.34,192.0.2.35,192.0.2.36,192.0.2.37,192.0.2.38,192.0.2.39,192.0.2.40,192.0.2.41,192.0.2.42,192.0.2.43,192.0.2.44,192.0.2.45,192.0.2.46
  export GLOBAL_DECODE_SERVER_IP_LIST=192.0.2.29,192.0.2.30,192.0.2.31,192.0.2.32,192.0.2.33,192.0.2.34,192.0.2.35,192.0.2.36,192.0.2.37,192.0.2.38,192.0.2.39,192.0.2.40,192.0.2.41,192.0.2.42,192.0.2.43,192.0.2.44,192.0.2.45,192.0.2.46
  export SERVER_OFFSET=0
  export VLLM_DP_SIZE=1
  export VLLM_DP_RANK=0
  export VLLM_DP_RANK_LOCAL=0
  export VLLM_DP_MASTER_IP=192.0.2.14
  export VLLM_DP_MASTER_PORT=8003
  export VLLM_ENABLE_MC2=1
  export USING_LCCL_COM=0
  export OMNI_USE_DSV3=1
  export HCCL_OP_EXPANSION_MODE=AIV
  export HCCL_INTRA_ROCE_ENABLE=1
  export HCCL_INTRA_PCIE_ENABLE=0
  export HCCL_CONNECT_TIMEOUT=1800
  export HCCL_EXEC_TIMEOUT=1800
  export PYTORCH_NPU_ALLOC_CONF=expandable_segments:True
  export TNG_HOST_COPY=1
  export AUTO_USE_UC_MEMORY=1
  export TASK_QUEUE_ENABLE=2
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
  mkdir -p /tmp/omnikit-HASH/p3
  exec vllm serve /data/models/DeepSeek-R1-W8A8 \
    --trust-remote-code \
    --gpu-memory-utilization 0.92 \
    --block_size 128 \
    --tensor-parallel-size 16 \
    --data-parallel-size 1 \
    --port 9003 \
    --served-model-name deepseek \
    --max-model-len 32000 \
    --data-parallel-size-local 1 \
    --data-parallel-address 192.0.2.14 \
    --data-parallel-rpc-port 8003 \
    --kv-transfer-config '{"kv_connector": "AscendHcclConnectorV1", "kv_buffer_device": "npu", "kv_role": "kv_producer", "kv_rank": 3, "engine_id": "3", "kv_parallel_size": 19}' \
    --enable-expert-parallel \
    --disable-log-requests \
    --no-enable-prefix-caching \
    --no-enable-chunked-prefill \
    --speculative_config '{"method": "deepseek_mtp", "num_speculative_tokens": 1}' \
    --max-num-batched-tokens 30000 \
    --max-num-seqs 16 \
    --enforce-eager \
    "${own[@]}"
}

main "$@"
