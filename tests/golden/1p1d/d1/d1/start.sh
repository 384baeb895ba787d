#!/usr/bin/env bash
# generated from environment 1p1d for node d1: a change here is lost with the next deploy
# Starts one API server of d1 (decode) in the foreground. It may run again once the first has ended.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: start.sh [RANK]
Start API server RANK (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15; default 0) of d1 in the foreground; Ctrl-C ends it.
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
  export MODEL_EXTRA_CFG_PATH=/data/omnikit/bundle/d1/model_extra_config.json
  export ROLE=decode
  export PREFILL_POD_NUM=1
  export DECODE_POD_NUM=1
  export VLLM_LLMDATADIST_ZMQ_PORT=5568
  export LOCAL_DECODE_SERVER_IP_LIST=192.0.2.12,192.0.2.13
  export GLOBAL_DECODE_SERVER_IP_LIST=192.0.2.12,192.0.2.13
  export SERVER_OFFSET=16
  export VLLM_DP_SIZE=32
  export VLLM_DP_MASTER_IP=192.0.2.12
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
      export VLLM_DP_RANK=16
      export VLLM_DP_RANK_LOCAL=16
      own=(--port 9101)
      ;;
    1)
      export ASCEND_RT_VISIBLE_DEVICES=1
      export VLLM_DP_RANK=17
      export VLLM_DP_RANK_LOCAL=17
      own=(--port 9102)
      ;;
    2)
      export ASCEND_RT_VISIBLE_DEVICES=2
      export VLLM_DP_RANK=18
      export VLLM_DP_RANK_LOCAL=18
      own=(--port 9103)
      ;;
    3)
      export ASCEND_RT_VISIBLE_DEVICES=3
      export VLLM_DP_RANK=19
      export VLLM_DP_RANK_LOCAL=19
      own=(--port 9104)
      ;;
    4)
      export ASCEND_RT_VISIBLE_DEVICES=4
      export VLLM_DP_RANK=20
      export VLLM_DP_RANK_LOCAL=20
      own=(--port 9105)
      ;;
    5)
      export ASCEND_RT_VISIBLE_DEVICES=5
      export VLLM_DP_RANK=21
      export VLLM_DP_RANK_LOCAL=21
      own=(--port 9106)
      ;;
    6)
      export ASCEND_RT_VISIBLE_DEVICES=6
      export VLLM_DP_RANK=22
      export VLLM_DP_RANK_LOCAL=22
      own=(--port 9107)
      ;;
    7)
      export ASCEND_RT_VISIBLE_DEVICES=7
      export VLLM_DP_RANK=23
      export VLLM_DP_RANK_LOCAL=23
      own=(--port 9108)
      ;;
    8)
      export ASCEND_RT_VISIBLE_DEVICES=8
      export VLLM_DP_RANK=24
      export VLLM_DP_RANK_LOCAL=24
      own=(--port 9109)
      ;;
    9)
      export ASCEND_RT_VISIBLE_DEVICES=9
      export VLLM_DP_RANK=25
      export VLLM_DP_RANK_LOCAL=25
      own=(--port 9110)
      ;;
    10)
      export ASCEND_RT_VISIBLE_DEVICES=10
      export VLLM_DP_RANK=26
      export VLLM_DP_RANK_LOCAL=26
      own=(--port 9111)
      ;;
    11)
      export ASCEND_RT_VISIBLE_DEVICES=11
      export VLLM_DP_RANK=27
      export VLLM_DP_RANK_LOCAL=27
      own=(--port 9112)
      ;;
    12)
      export ASCEND_RT_VISIBLE_DEVICES=12
      export VLLM_DP_RANK=28
      export VLLM_DP_RANK_LOCAL=28
      own=(--port 9113)
      ;;
    13)
      export ASCEND_RT_VISIBLE_DEVICES=13
      export VLLM_DP_RANK=29
      export VLLM_DP_RANK_LOCAL=29
      own=(--port 9114)
      ;;
    14)
      export ASCEND_RT_VISIBLE_DEVICES=14
      export VLLM_DP_RANK=30
      export VLLM_DP_RANK_LOCAL=30
      own=(--port 9115)
      ;;
    15)
      export ASCEND_RT_VISIBLE_DEVICES=15
      export VLLM_DP_RANK=31
      export VLLM_DP_RANK_LOCAL=31
      own=(--port 9116)
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
  mkdir -p /tmp/omnikit-HASH/d1
  exec vllm serve /data/models/DeepSeek-R1-W8A8 \
    --trust-remote-code \
    --gpu-memory-utilization 0.92 \
    --block_size 128 \
    --tensor-parallel-size 1 \
    --data-parallel-size 1 \
    --served-model-name deepseek \
    --max-model-len 16384 \
    --data-parallel-size-local 1 \
    --data-parallel-address 192.0.2.12 \
    --data-parallel-rpc-port 8100 \
    --kv-transfer-config '{"kv_connector": "AscendHcclConnectorV1", "kv_buffer_device": "npu", "kv_role": "kv_consumer", "kv_rank": 1, "engine_id": "1", "kv_parallel_size": 2}' \
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
