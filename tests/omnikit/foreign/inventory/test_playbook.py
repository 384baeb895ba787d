"""Variables of omni-infer's playbook: in a file of their own, or in the playbook."""

from __future__ import annotations

from pathlib import Path

import pytest
from foreign_files import TWO_P, line_of
from settings_file import write

from hostkit.base.errors import InputError
from omnikit.config import config
from omnikit.topology.topology import make_plan

VARIABLES = """\
LOG_PATH: /data/log_path
LOG_PATH_IN_EXECUTOR: /data/here
MODEL_PATH: /data/models/m
DOCKER_IMAGE_ID: "repository:tag"
SCRIPTS_PATH: /tmp/scripts
PREFILL_LB_SDK: least_conn
DECODE_LB_SDK: pd_score_balance
DECODE_TENSOR_PARALLEL_SIZE: "2"
HTTP_PROXY: ""
GLOBAL_PROXY_CORE_NUM: "8"
GLOBAL_PROXY_START_CORE_INDEX: "20"
CPU_AFFINITY_CONF: "1,npu0:0-1"
KV_CONNECTOR: AscendHcclConnectorV1
ranktable_save_path: /tmp/ranktables
docker_run_cmd: |
  docker run -it -e RANKTABLE_SAVE_PATH={{ ranktable_save_path }}
"""
PLAYBOOK = """\
- name: run
  hosts: all
  gather_facts: yes

  environment:
    LOG_PATH: "{{ base }}/log"
    MODEL_LEN_MAX_PREFILL: "31000"
    DOCKER_NAME_P: "you_name"

  vars:
    base: /data
    run_vllm_server_prefill_cmd: |
      bash pd_run.sh {{ hostvars[inventory_hostname].api_port | int + 100 }}

  tasks:
    - name: x
      command: "{{ nothing.that.exists }}"
"""


def test_each_is_used_or_named(tmp_path: Path) -> None:
    path = write(tmp_path, VARIABLES, "group.yml")
    loaded = config.load(None, [str(TWO_P), str(path)], environ={})
    settings = loaded.settings
    assert (settings.paths.log_dir, settings.paths.local_log_dir) == (
        "/data/log_path",
        "/data/here",
    )
    assert (settings.model.path, settings.container.image) == ("/data/models/m", "repository:tag")
    proxy = settings.proxy
    assert (proxy.prefill_balance, proxy.decode_balance) == ("least_conn", "pd_score_balance")
    assert (proxy.worker_processes, proxy.start_core) == (8, 20)
    assert settings.roles.decode.server is not None
    assert settings.roles.decode.server.tensor_parallel == 2
    env = config.Config.server_for(loaded, "prefill", 0, "p0")[0].env
    assert env["CPU_AFFINITY_CONF"] == "1,npu0:0-1"
    mine = [note for note in loaded.notes if str(path) in note]
    assert len(mine) == 2
    assert mine[0].startswith(f"{path}:5: SCRIPTS_PATH, ranktable_save_path (line 14): not used:")
    assert mine[1].startswith(
        f"{path}:15: docker_run_cmd: not used: the toolkit makes its commands"
    )
    assert loaded.environment == "omni_infer_inventory_used_for_2P1D"


def test_a_playbook_is_read_for_its_variables(tmp_path: Path) -> None:
    path = write(tmp_path, PLAYBOOK, "server.yml")
    loaded = config.load(None, [str(path), str(TWO_P)], environ={})
    assert loaded.settings.paths.log_dir == "/data/log"
    assert loaded.settings.container.prefix.prefill == "you_name"
    assert loaded.tree.at(("roles", "prefill", "server", "args", "max-model-len")).value == 31000
    mine = [note for note in loaded.notes if str(path) in note]
    assert mine[0].startswith(f"{line_of(path, 'tasks:')}: tasks of the playbook are not run")
    assert mine[1].startswith(f"{line_of(path, '_cmd:')}: run_vllm_server_prefill_cmd: not used")
    assert len(mine) == 2


def test_the_connector_of_later_releases_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "LOG_PATH: /l\nKV_CONNECTOR: LLMDataDistConnector\n", "v.yml")
    given = ["profile.omni_version=2026-06", "profile.model=openpangu-2.0-flash"]
    loaded = config.load(None, [str(TWO_P), str(path)], given, environ={})
    assert make_plan(loaded).nodes and not [n for n in loaded.notes if "KV_CONN" in n]
    older = make_plan(config.load(None, [str(TWO_P), str(path)], environ={}))
    assert f"{path}:2: nothing is known of the connector LLMDataDistConnector" in older.notes[0]


def test_mistakes_are_named_with_their_line(tmp_path: Path) -> None:
    for line, text, what in (
        (1, "PREFILL_LB_SDK: fastest\n", "proxy.prefill_balance: found 'fastest'"),
        (2, "LOG_PATH: /l\nKV_CONNECTOR: LMCacheConnectorV1\n", "expected 'AscendHcclConnectorV1'"),
        (1, "LOG_PATH: '{{ bse }}/l'\nbase: /x\n", "'bse' is undefined for the playbook"),
        (2, "LOG_PATH: /l\nDECODE_TENSOR_PARALLEL_SIZE: two\n", "found 'two'"),
    ):
        path = write(tmp_path, text, "v.yml")
        with pytest.raises(InputError) as caught:
            config.load(None, [str(TWO_P), str(path)], environ={})
        assert what in str(caught.value)
        assert str(caught.value.where) == f"{path}:{line}"
