"""Profiles of omni-infer's roles of 2026: what is read of them, and what is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from foreign_files import SINGLE_NODE, line_of
from settings_file import write

from hostkit.base.errors import InputError
from omnikit.config import config
from omnikit.config.config import Config
from omnikit.plan.arguments import flag, json_flag
from omnikit.topology.topology import make_plan

PLAYBOOK = """\
- name: run
  hosts: all
  environment:
    LOG_PATH: /data/log_path
    CODE_PATH: /data/local_code_path
    DOCKER_IMAGE_ID: "registry/omni:1.2"
    DOCKER_NAME_P: my_prefill
    SCRIPTS_PATH: /tmp/scripts_path
  vars:
    model: pangu-v2-92b
    model_path: /data/models/Pangu
    run_docker_profile:
      shm_size: 1600g
      envs: [PYTHONHASHSEED=1234]
      extra_mounts: ["/mnt:/mnt"]
    run_server_prefill_profile:
      runner: pd_run.sh
      docker_envs: {ENABLE_OVERWRITE_REQ_IDS: 1}
      prepare_commands: |-
        # what it needs
        export SERVER_IP_LIST={{
          DECODE_SERVER_IP_LIST_ALL
          | quote
        }}
        export HCCL_BUFFSIZE=200 HCCL_CONNECT_TIMEOUT=1800
        export HCCL_EXEC_TIMEOUT=1800
        export PYTHONPATH=/my/packages:$PYTHONPATH
        EXTRA_ARGS="--max-num-seqs 5 --enforce-eager"
        EXTRA_ARGS="${EXTRA_ARGS} --reasoning-config {\\"a\\":\\"<b>\\"}"
        rm -rf /tmp/x
      args:
        - --max-model-len 65536
        - --gpu-util 0.7
        - --extra-args "${EXTRA_ARGS}"
        - >-
          --additional-config '{"enable_low_latency": false}'
    run_server_decode_profile:
      args:
        - --tp 2 --max-model-len 65536
        - --num-speculative-tokens 2
        - --served-model-name mine
        - >-
          --extra-args '--compilation-config {"mode": 3, "backend": "x"} --max-num-seqs 9'
        - --new-thing 7
    run_server_common_profile:
      multi_node_prefill_wait_seconds: 30
    run_proxy_profile: {args: [--log-level info]}
    sync_code_profile: {host_sync: {enabled: true}}
  tasks:
    - ansible.builtin.import_role: {name: common}
"""


def load(folder: Path, playbook: str = PLAYBOOK) -> tuple[Config, Path]:
    source = folder / SINGLE_NODE.name
    source.write_text(SINGLE_NODE.read_text().replace("127.0.0.1", "192.0.2.1"))
    path = write(folder, playbook, "server.yml")
    given = ["profile.omni_version=2026-09", "profile.model=openpangu-2.0-flash"]
    return config.load(None, [str(source), str(path)], given, environ={}), path


def test_a_profile_is_read_for_its_variables_and_words(tmp_path: Path) -> None:
    loaded, _ = load(tmp_path)
    settings = loaded.settings
    assert settings.paths.log_dir == "/data/log_path"
    assert settings.paths.code_dir == "/workspace/omniinfer" and not settings.paths.local_code_dir
    assert (settings.container.image, settings.container.shm_size) == ("registry/omni:1.2", "1600g")
    assert settings.container.env == {"PYTHONHASHSEED": "1234"}
    assert settings.container.prefix.prefill == "my_prefill"
    assert (settings.model.path, settings.model.served_name) == ("/data/models/Pangu", "mine")
    prefill, decode = make_plan(loaded).nodes
    told = {name: prefill.env[name] for name in ("HCCL_BUFFSIZE", "ENABLE_OVERWRITE_REQ_IDS")}
    assert told == {"HCCL_BUFFSIZE": "200", "ENABLE_OVERWRITE_REQ_IDS": "1"}
    assert prefill.env["HCCL_EXEC_TIMEOUT"] == "120"
    assert prefill.prepend["PYTHONPATH"] == "/my/packages"
    assert "SERVER_IP_LIST" not in prefill.env
    words = ("max-model-len", "gpu-memory-utilization", "max-num-seqs")
    assert [flag(prefill, name) for name in words] == ["65536", "0.7", "5"]
    assert json_flag(prefill, "reasoning-config")["a"] == "<b>"
    assert json_flag(prefill, "additional-config") == {"enable_low_latency": False}
    assert decode.tensor_parallel == 2 and flag(decode, "max-num-seqs") == "9"
    assert json_flag(decode, "speculative_config")["num_speculative_tokens"] == 2
    assert json_flag(decode, "compilation-config")["backend"] == "x"


def test_what_has_no_effect_is_named_with_its_line_and_why(tmp_path: Path) -> None:
    loaded, path = load(tmp_path)
    mine = [note for note in loaded.notes if str(path) in note]
    for at, what in (
        ("CODE_PATH", "CODE_PATH: not used: with this playbook the image has the source"),
        ("model: pangu", "model: not used: it is a name for messages"),
        ("extra_mounts", "run_docker_profile.extra_mounts: not used: mounts are given whole"),
        ("runner", "run_server_prefill_profile.runner: not used: the start script is"),
        ("export SERVER_IP_LIST", "SERVER_IP_LIST: not used: the plan says it"),
        ("HCCL_EXEC_TIMEOUT", "HCCL_EXEC_TIMEOUT: not used: omni-infer's start script sets 120"),
        ("rm -rf", "rm -rf /tmp/x: not used: only exports of plain values are read"),
        ("--new-thing", "--new-thing: not used: no such option of the start script"),
        ("multi_node_prefill", "multi_node_prefill_wait_seconds: not used: servers are asked"),
        ("run_proxy_profile", "run_proxy_profile: not used: the proxy's configuration is"),
        ("sync_code_profile", "sync_code_profile: not used: the toolkit makes its commands"),
        ("tasks:", "tasks of the playbook are not run"),
    ):
        found = [note for note in mine if what in note]
        assert found and found[0].startswith(line_of(path, at)), (what, mine)


@pytest.mark.parametrize(
    ("old", "new", "at", "what"),
    [
        ("model: pangu", "enable_kv_pool: true\n    model: pangu", "enable_kv_pool", "the KV pool"),
        ("model: pangu", "epd_profile: {enabled: true}\n    model: p", "epd_profile", "encoders"),
        (
            "runner: pd_run.sh",
            "kv_offload: {enable: true}",
            "kv_offload",
            "KV offload to the host's memory is switched on",
        ),
        ("[PYTHONHASHSEED=1234]", "[PYTHONHASHSEED]", "envs:", "expected NAME=value"),
        ("--tp 2", "--tp two", "--tp two", "--tp: found 'two', expected a whole number"),
        ("--gpu-util 0.7", "--gpu-util '0.7", "--gpu-util", "expected words of a command line"),
        ("--gpu-util 0.7", "--gpu-util: 0.7", "--gpu-util", "args: found a map, expected words"),
        ("[PYTHONHASHSEED=1234]", "A=1", "envs:", "envs of run_docker_profile: found 'A=1', expec"),
        ("IDS: 1}", "IDS: [1]}", "docker_envs", "expected text"),
        ("docker_envs: {", "docker_envs: [{", "docker_envs", "expected a map"),
    ],
)
def test_what_cannot_be_served_is_refused(
    old: str, new: str, at: str, what: str, tmp_path: Path
) -> None:
    assert old in PLAYBOOK
    text = PLAYBOOK.replace(old, new, 1)
    text = text.replace("REQ_IDS: 1}", "REQ_IDS: 1}]") if "[{" in new else text
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    assert what in str(caught.value)
    assert str(caught.value.where) == line_of(tmp_path / "server.yml", at)
