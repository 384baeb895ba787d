#!/usr/bin/env bash
# generated from environment 8p1d for node d4: a change here is lost with the next deploy
# Starts one API server of d4 (decode) in the foreground. It may run again once the first has ended.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: start.sh [RANK]
Start API server RANK (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15; default 0) of d4 in the foreground; Ctrl-C ends it.
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
  export GLOO_SOCKET_IFNAME="$interface"
  export TP_SOCKET_IFNAME="$interface"
  export HCCL_IF_BASE_PORT=20000
  export GLOBAL_RANK_TABLE_FILE_PATH=/data/omnikit/bundle/ranktable/global/global_ranktable_merge.json
  export RANK_TABLE_FILE_PATH=/data/omnikit/bundle/ranktable/local_ranktable_merge.json
  export MODEL_EXTRA_CFG_PATH=/data/omnikit/bundle/d4/model_extra_config.json
  export ROLE=decode
  export PREFILL_POD_NUM=8
  export DECODE_POD_NUM=1
  export VLLM_LLMDATADIST_ZMQ_PORT=5568
  export LOCAL_DECODE_SERVER_IP_LIST=192.0.2.19,192.0.2.20,192.0.2.21,192.0.2.22,192.0.2.23,192.0.2.24,192.0.2.25,192.0.2.26
  export GLOBAL_DECODE_SERVER_IP_LIST=192.0.2.19,192.0.2.20,192.0.2.21,192.0.2.22,192.0.2.23,192.0.2.24,192.0.2.25,192.0.2.26
  export SERVER_OFFSET=64
  export VLLM_DP_SIZE=128
  export VLLM_DP_MASTER_IP=192.0.2.19
  export VLLM_DP_MASTER_PORT=8100
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
  export HCCL_BUFFSIZE=1000
  case $rank in
    0)
      export ASCEND_RT_VISIBLE_DEVICES=0
      export VLLM_DP_RANK=64
      export VLLM_DP_RANK_LOCAL=64
      own=(--port 9104)
      ;;
    1)
      export ASCEND_RT_VISIBLE_DEVICES=1
      export VLLM_DP_RANK=65
      export VLLM_DP_RANK_LOCAL=65
      own=(--port 9105)
      ;;
    2)
      export ASCEND_RT_VISIBLE_DEVICES=2
      export VLLM_DP_RANK=66
      export VLLM_DP_RANK_LOCAL=66
      own=(--port 9106)
      ;;
    3)
      export ASCEND_RT_VISIBLE_DEVICES=3
      export VLLM_DP_RANK=67
      export VLLM_DP_RANK_LOCAL=67
      own=(--port 9107)
      ;;
    4)
      export ASCEND_RT_VISIBLE_DEVICES=4
      export VLLM_DP_RANK=68
      export VLLM_DP_RANK_LOCAL=68
      own=(--port 9108)
      ;;
    5)
      export ASCEND_RT_VISIBLE_DEVICES=5
      export VLLM_DP_RANK=69
      export VLLM_DP_RANK_LOCAL=69
      own=(--port 9109)
      ;;
    6)
      export ASCEND_RT_VISIBLE_DEVICES=6
      export VLLM_DP_RANK=70
      export VLLM_DP_RANK_LOCAL=70
      own=(--port 9110)
      ;;
    7)
      export ASCEND_RT_VISIBLE_DEVICES=7
      export VLLM_DP_RANK=71
      export VLLM_DP_RANK_LOCAL=71
      own=(--port 9111)
      ;;
    8)
      export ASCEND_RT_VISIBLE_DEVICES=8
      export VLLM_DP_RANK=72
      export VLLM_DP_RANK_LOCAL=72
      own=(--port 9112)
      ;;
    9)
      export ASCEND_RT_VISIBLE_DEVICES=9
      export VLLM_DP_RANK=73
      export VLLM_DP_RANK_LOCAL=73
      own=(--port 9113)
      ;;
    10)
      export ASCEND_RT_VISIBLE_DEVICES=10
      export VLLM_DP_RANK=74
      export VLLM_DP_RANK_LOCAL=74
      own=(--port 9114)
      ;;
    11)
      export ASCEND_RT_VISIBLE_DEVICES=11
      export VLLM_DP_RANK=75
      export VLLM_DP_RANK_LOCAL=75
      own=(--port 9115)
      ;;
    12)
      export ASCEND_RT_VISIBLE_DEVICES=12
      export VLLM_DP_RANK=76
      export VLLM_DP_RANK_LOCAL=76
      own=(--port 9116)
      ;;
    13)
      export ASCEND_RT_VISIBLE_DEVICES=13
      export VLLM_DP_RANK=77
      export VLLM_DP_RANK_LOCAL=77
      own=(--port 9117)
      ;;
    14)
      export ASCEND_RT_VISIBLE_DEVICES=14
      export VLLM_DP_RANK=78
      export VLLM_DP_RANK_LOCAL=78
      own=(--port 9118)
      ;;
    15)
      export ASCEND_RT_VISIBLE_DEVICES=15
      export VLLM_DP_RANK=79
      export VLLM_DP_RANK_LOCAL=79
      own=(--port 9119)
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
  mkdir -p /tmp/omnikit-HASH/d4
  exec vllm serve /data/models/DeepSeek-R1-W8A8 \
    --trust-remote-code \
    --gpu-memory-utilization 0.92 \
    --block_size 128 \
    --tensor-parallel-size 1 \
    --data-parallel-size 1 \
    --served-model-name deepseek \
    --max-model-len 16384 \
    --data-parallel-size-local 1 \
    --data-parallel-address 192.0.2.19 \
    --data-parallel-rpc-port 8100 \
    --kv-transfer-config '{"kv_connector": "AscendHcclConnectorV1", "kv_buffer_device": "npu", "kv_role": "kv_consumer", "kv_rank": 8, "engine_id": "8", "kv_parallel_size": 9}' \
    --enable-expert-parallel \
    --disable-log-requests \
    --no-enable-prefix-caching \
    --no-enable-chunked-prefill \
    --speculative_config '{"method": "deepseek_mtp", "num_speculative_tokens": 1}' \
    --max-num-seqs 32 \
    --additional-config '{"graph_model_compile_config": {"level": 1}}' \
    "${own[@]}"
}

main "$@"
