"""The Ansible action that ships and runs the agent (scripts/fleet/action_plugins/host_agent.py)."""

from __future__ import annotations

import importlib.util
import json
import sys
import zipfile
from pathlib import Path

import pytest

from hostkit.agent import receive
from hostkit.base import folders
from omnikit.config import config
from omnikit.fleet import fleet

pytestmark = pytest.mark.slow

ACTION = fleet.PLAYBOOKS / "action_plugins" / "host_agent.py"
AGENT = (
    "import sys\n"
    "sys.stderr.write('on stderr')\n"
    "print(sys.argv[1:], sys.stdin.read().strip())\n"
    "sys.exit(int(sys.argv[1]))\n"
)


def tasks(folder: Path) -> str:
    agent = f"agent: {folder}/there/agent.pyz"
    return f"""\
- hosts: all
  gather_facts: false
  tasks:
    - name: Nothing there
      host_agent: {{{agent}, words: ["0"], removes: {folder}/there/agent.pyz}}
      changed_when: false
    - name: New
      host_agent: {{{agent}, words: ["0", "two words"], archive: {folder}/a.pyz, stdin: given}}
      register: new
      changed_when: new.shipped
    - name: Known
      host_agent: {{{agent}, words: ["0"], archive: {folder}/a.pyz}}
      register: known
      changed_when: known.shipped
    - name: Not shipped
      host_agent: {{{agent}, words: ["0"], removes: {folder}/there/agent.pyz}}
    - name: Failed
      host_agent: {{{agent}, words: ["2"]}}
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> fleet.Outcome:
    folder = tmp_path_factory.mktemp("action")
    for path in ("ansible.cfg", "callback_plugins", "action_plugins"):
        (folder / path).symlink_to(fleet.PLAYBOOKS / path)
    with zipfile.ZipFile(folder / "a.pyz", "w") as made:
        made.writestr("__main__.py", AGENT)
        made.write(folders.__file__, "hostkit/base/folders.py")
    (folder / "play.yml").write_text(tasks(folder))
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    (folder / "inventory.json").write_text(json.dumps({"all": {"hosts": {"h": host}}}))
    settings = config.load("local", environ={}).settings
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fleet, "PLAYBOOKS", folder)
        return fleet.play("play.yml", folder / "inventory.json", settings)


def test_the_archive_is_shipped_and_run_with_its_words_and_input(outcome: fleet.Outcome) -> None:
    new, known = outcome.results["New"]["h"], outcome.results["Known"]["h"]
    assert new["stdout"] == "['0', 'two words'] given\n" and new["stderr"] == "on stderr"
    assert (new["changed"], known["changed"]) == (True, False)
    assert known["stdout"] == "['0'] \n"


def test_an_agent_that_is_there_is_run_and_one_that_is_not_is_left(outcome: fleet.Outcome) -> None:
    assert outcome.results["Nothing there"]["h"]["stdout"] == ""
    assert outcome.results["Not shipped"]["h"]["stdout"] == "['0'] \n"


def test_its_exit_status_is_the_tasks(outcome: fleet.Outcome) -> None:
    assert [(one["task"], one["rc"]) for one in outcome.failures] == [("Failed", 2)]
    assert fleet.failure(outcome.failures[0]).exit_code == 2


@pytest.mark.parametrize("failed_before", [False, True])
def test_who_waits_gives_up_when_another_host_has_failed(
    tmp_path: Path, failed_before: bool
) -> None:
    """Servers that link to each other while they start would wait for a dead one. Who is asked
    only after that is asked all the same: it may be ready.
    """
    if failed_before:
        (tmp_path / "give-up").touch()
    for path in ("ansible.cfg", "callback_plugins", "action_plugins"):
        (tmp_path / path).symlink_to(fleet.PLAYBOOKS / path)
    (tmp_path / "agent.py").write_text("import sys; sys.exit(int(sys.argv[1]))\n")
    (tmp_path / "play.yml").write_text(f"""\
- hosts: all
  gather_facts: false
  tasks:
    - name: Wait
      host_agent:
        agent: {tmp_path}/agent.py
        words: ["{{{{ code }}}}"]
        give_up: {tmp_path}/give-up
      register: waited
      until: waited.rc != 3
      failed_when: waited.rc != 0
      retries: 100000
      delay: 0
""")
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {name: {**host, "code": code} for name, code in (("a", "3"), ("b", "1"), ("c", "0"))}
    (tmp_path / "inventory.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    settings = config.load("local", environ={}).settings
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fleet, "PLAYBOOKS", tmp_path)
        outcome = fleet.play("play.yml", tmp_path / "inventory.json", settings)
    assert {one["host"]: one["rc"] for one in outcome.failures} == {"a": 4, "b": 1}
    assert "another host" in next(one["msg"] for one in outcome.failures if one["host"] == "a")


def test_one_word_says_that_an_archive_is_new() -> None:
    spec = importlib.util.spec_from_file_location("host_agent_action", ACTION)
    assert spec is not None and spec.loader is not None
    action = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(action)
    assert action._SHIPPED == receive.SHIPPED + "\n"
