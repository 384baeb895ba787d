"""Each thing that msmodelslim needs, found and missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from slim_case import KERNELS, TOOLKIT, Machine

from hostkit.base.errors import ManyErrors
from hostkit.base.log import say
from omnikit.config import config
from omnikit.weights.msmodelslim import checks as msmodelslim_checks
from omnikit.weights.msmodelslim import tool as msmodelslim_tool
from omnikit.weights.msmodelslim.checks import Check

pytestmark = pytest.mark.slow


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def look(machine: Machine, **changes: object) -> dict[str, Check]:
    words = [word[len("--set=") :] for word in machine.options() if word.startswith("--set=")]
    tool = msmodelslim_tool.of_settings(config.load("local", [], words, environ={}).settings)
    looked = msmodelslim_checks.look(replace(tool, **changes), machine.source, machine.out, say)
    return {check.name: check for check in looked.checks}


def test_a_machine_that_has_all(machine: Machine) -> None:
    checks = look(machine)
    assert [name for name, check in checks.items() if not check.ok or check.warning] == []
    assert len(checks) == 13
    text = msmodelslim_checks.text(tuple(checks.values()))
    assert "ok  transformers      4.48.2" in text and "needed" not in text
    msmodelslim_checks.refuse(tuple(checks.values()))


def test_without_cann(machine: Machine) -> None:
    machine.set_env.unlink()
    checks = look(machine)
    assert "there is no file" in checks["CANN environment"].found
    assert "Ascend-cann-toolkit_8.1.RC1_linux" in checks["CANN environment"].todo
    assert checks["CANN toolkit"].ok  # it lies beside where set_env.sh should be
    (machine.cann / TOOLKIT).unlink()
    (machine.cann / KERNELS).write_text("nothing=1\n")
    checks = look(machine)
    assert not checks["CANN toolkit"].ok
    assert checks["CANN kernels"].found == "of unknown version"


@pytest.mark.parametrize(
    "state, ok, found",
    [
        ("a3.healthy", True, "16 devices"),
        ("a3.serving", True, "in use by other processes"),
        ("a3.chip-warning", False, "not OK: "),
        ("dcmi-8005", False, "npu-smi lists no chip"),
    ],
)
def test_devices(
    state: str, ok: bool, found: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_NPU_SMI", state)
    check = look(machine)["NPUs"]
    assert check.ok == ok and found in check.found
    assert check.warning == ("in use" in check.found)


def test_only_the_devices_that_the_tool_sees_count(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_NPU_SMI", "a3.chip-warning")
    ill = look(machine)["NPUs"].found.split("not OK: ")[1].split()[0]
    others = ",".join(str(one) for one in range(16) if str(one) != ill)
    words = {"ASCEND_RT_VISIBLE_DEVICES": others, "PYTORCH_NPU_ALLOC_CONF": "x"}
    check = look(machine, env=words)["NPUs"]
    assert check.ok and check.found.startswith("15 devices")


def test_a_missing_program_is_named(machine: Machine) -> None:
    checks = look(machine, python="/no/python", npu_smi="/no/npu-smi")
    assert checks["Python"].found == "cannot start /no/python: No such file or directory"
    assert "weights.msmodelslim.python" in checks["Python"].todo
    assert "transformers" not in checks
    assert "cannot start /no/npu-smi" in checks["NPUs"].found


def test_packages_with_what_mends_them(machine: Machine) -> None:
    machine.install("torch", "2.1.0+cpu")
    assert look(machine)["torch-npu"].ok
    machine.remove("torch")
    check = look(machine)["torch-npu"]
    assert check.found == "torch-npu 2.1.0.post10, torch none"
    assert check.todo == f"{machine.python} -m pip install 'torch-npu==2.1.0.*' torch==2.1.0"


def test_a_tool_whose_help_fails_shows_its_error(machine: Machine) -> None:
    machine.script.write_text("import no_such_module\n")
    assert "No module named 'no_such_module'" in look(machine)["flags"].found
    machine.script.unlink()
    checks = look(machine)
    assert checks["flags"].found == "not asked: it cannot start"
    assert "git clone --depth 1 -b 8.0.RC1_ZS2.0_20251230" in checks["msmodelslim"].todo


def test_files_that_cannot_be_edited_and_a_full_disk(machine: Machine) -> None:
    (machine.source / "config.json").write_text('{"architectures": ["X"]}')
    (machine.source / "modeling_deepseek.py").write_text("")
    checks = look(machine, free_ratio=1e15)
    assert "found no class; " in checks["edits"].found
    assert "prepare-checkpoint --dir=" in checks["edits"].todo
    with pytest.raises(ManyErrors) as raised:
        msmodelslim_checks.refuse(tuple(checks.values()))
    assert len(raised.value.errors) == 2 and "GiB free in" in str(raised.value)
