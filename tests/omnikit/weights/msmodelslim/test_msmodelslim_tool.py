"""msmodelslim's command and environment, and what its --help is asked for."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from slim_case import Machine

from hostkit.base.errors import ActionError, InputError
from omnikit.config import config
from omnikit.weights.msmodelslim import tool as msmodelslim_tool
from omnikit.weights.msmodelslim.tool import flag_problems

HELP = """usage: quant_deepseek_w8a8.py [-h] --model_path MODEL_PATH --save_path
                              SAVE_PATH [--from_fp8] [--dynamic]
                              [--post_opt | --no-post_opt]
                              [--quant_mtp {mix,float,none}] [--disable_anti_x]

options:
  --cloud_vllm in a description is no option
"""


@pytest.fixture
def tool(tmp_path: Path) -> msmodelslim_tool.Tool:
    machine = Machine(tmp_path)
    words = [word[len("--set=") :] for word in machine.options() if word.startswith("--set=")]
    return msmodelslim_tool.of_settings(config.load("local", [], words, environ={}).settings)


@pytest.mark.parametrize(
    "flags, problems",
    [
        (["--model_path", "x", "--save_path=y", "--from_fp8", "--dynamic"], []),
        (["--quant_mtp", "mix", "--post_opt"], []),
        (["--quant_mtp", "--dynamic"], ["--quant_mtp wants a value: {mix,float,none}"]),
        (["--dynamic", "True"], ["--dynamic takes no value, found True"]),
        (["--cloud_vllm"], ["it has no --cloud_vllm"]),
        (["--disable_anti", "--quant"], ["it has no --disable_anti", "it has no --quant"]),
    ],
)
def test_flags_are_looked_up_in_the_usage(flags: list[str], problems: list[str]) -> None:
    assert flag_problems(HELP, flags) == problems


def test_the_default_is_the_install_guides_command(tool: msmodelslim_tool.Tool) -> None:
    words = msmodelslim_tool.command(tool, Path("/src"), Path("/dst"))
    assert words[1:] == [
        *(str(tool.script), "--model_path", "/src", "--save_path", "/dst"),
        *("--from_fp8", "--dynamic", "--disable_anti", "--quant_mtp", "--cloud_vllm"),
    ]


def test_the_environment_is_what_the_script_leaves_and_the_settings_say(
    tool: msmodelslim_tool.Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    home = tool.set_env.parent
    tool.set_env.write_text(tool.set_env.read_text() + "export TEXT='a\nb=c' PATH=/x:$PATH\n")
    left = msmodelslim_tool.sourced(tool)
    own = {"PYTHONDONTWRITEBYTECODE"}  # the case's script sets it
    assert set(left) - own == {"ASCEND_TOOLKIT_HOME", "PYTHONPATH", "TEXT", "PATH"}
    assert left["TEXT"] == "a\nb=c" and left["PATH"] == f"/x:{os.environ['PATH']}"
    env = msmodelslim_tool.environment(tool, left)
    # No empty entry at the end, which would be the folder where the tool is started.
    assert env["PYTHONPATH"] == f"{tool.folder}:{home}/site"
    assert env["PYTORCH_NPU_ALLOC_CONF"] == "expandable_segments:False"


def test_a_script_that_is_missing_or_fails(tool: msmodelslim_tool.Tool) -> None:
    tool.set_env.write_text("echo no CANN here >&2; return 3\n")
    with pytest.raises(ActionError, match="no CANN here"):
        msmodelslim_tool.sourced(tool)
    tool.set_env.write_text("exit 0\n")
    with pytest.raises(ActionError, match="ends the shell"):
        msmodelslim_tool.sourced(tool)
    with pytest.raises(InputError, match="there is no file"):
        msmodelslim_tool.sourced(replace(tool, set_env=Path("/no/such")))


def test_versions_are_read_without_importing(tool: msmodelslim_tool.Tool) -> None:
    env = msmodelslim_tool.environment(tool, msmodelslim_tool.sourced(tool))
    facts = msmodelslim_tool.python_facts(tool, env)
    assert facts["python"] == [3, 11, 7]
    assert facts["packages"]["torch-npu"] == "2.1.0.post10"
    assert "--cloud_vllm" in msmodelslim_tool.help_text(tool, env)
    with pytest.raises(ActionError, match="unexpected answer"):
        msmodelslim_tool.python_facts(replace(tool, python="echo"), env)
