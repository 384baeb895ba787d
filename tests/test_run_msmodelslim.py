"""From fp8 to W8A8 as one command, with stand-ins for CANN and the tool alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import convert_weights
import pytest
import run_msmodelslim
from checkpoint_case import LAYERS
from needs import needs
from safetensors import deserialize
from slim_case import KERNELS, Machine

from hostkit.base import records
from hostkit.base.health import wait_until

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "run_msmodelslim.py"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_one_command_and_a_second_one_changes_nothing(machine: Machine, capsys) -> None:
    assert run_msmodelslim.main(machine.options()) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{machine.out}: converted\n")
    assert f"invoke prepare-checkpoint --dir={machine.source} --revert" in said.out
    for text in ("CANN kernels      8.1.RC1", "+# if is_flash_attn_2_available():",
                 "loading the model", "100%|", "num_hidden_layers: 4 -> 3"):  # fmt: skip
        assert text in said.err
    assert "  0%|" in said.err and " 50%|" not in said.err
    config = json.loads((machine.out / "config.json").read_text())
    assert config["architectures"] == ["DeepseekV3ForCausalLM"]
    assert config["num_hidden_layers"] == LAYERS and "quantization_config" not in config
    assert len(list(machine.out.glob("quant_model_weight_w8a8_dynamic-*.safetensors"))) == 2
    assert not machine.partial.exists()
    [log] = machine.side.glob("log-*.txt")
    assert "--quant_mtp --cloud_vllm" in log.read_text() and "loading" in log.read_text()
    before = files(machine.root)
    assert run_msmodelslim.main(machine.options("--json")) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["result"] == "unchanged"
    assert list(answer["steps"]) == ["checked", "prepared", "converted", "finished"]
    assert files(machine.root) == before


def test_a_dry_run_shows_all_and_changes_nothing(machine: Machine, capsys) -> None:
    before = files(machine.root)
    assert run_msmodelslim.main(machine.options("--dry-run")) == 0
    shown = capsys.readouterr().out
    assert files(machine.root) == before
    for text in (
        "checked: to do",
        f"source '{machine.set_env}'",
        "PYTORCH_NPU_ALLOC_CONF=expandable_segments:False",
        f"--model_path {machine.source} --save_path {machine.partial} --from_fp8 --dynamic",
        '-    "quant_method": "fp8",',
        f"mv {machine.partial} {machine.out}",
    ):
        assert text in shown


def test_all_that_is_missing_is_said_at_once_and_nothing_is_changed(
    machine: Machine, capsys
) -> None:
    machine.install("transformers", "4.51.0")
    machine.install("torch_npu", "2.5.1")
    machine.remove("accelerate")
    (machine.cann / KERNELS).unlink()
    (machine.source / "model-00002-of-000002.safetensors").unlink()
    before = files(machine.root)
    words = machine.options("--set=weights.msmodelslim.free_ratio=1e12")
    assert run_msmodelslim.main(words) == 2
    said = capsys.readouterr().err
    for text in (
        "source: found 1 of 2 shards missing or empty: model-00002-of-000002.safetensors",
        "disk space: found ",
        "CANN kernels: found none in",
        "pip install transformers==4.48.2",
        "pip install accelerate",
        "torch-npu: found torch-npu 2.5.1, torch 2.1.0",
        "pip install 'torch-npu==2.1.0.*'",
        "flags: found not asked: it cannot start",
    ):
        assert text in said, text
    assert files(machine.root) == before
    assert run_msmodelslim.main([*words, "--dry-run"]) == 2
    assert "pip install accelerate" in capsys.readouterr().out


def test_another_branch_of_the_tool_is_told_by_its_help(
    machine: Machine, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SLIM_BRANCH", "master")
    assert run_msmodelslim.main(machine.options()) == 2
    said = capsys.readouterr().err
    assert "--quant_mtp wants a value: {mix,float,none}; it has no --cloud_vllm" in said
    assert "take msit's branch 8.0.RC1_ZS2.0_20251230" in said
    flags = '["--from_fp8", "--dynamic", "--disable_anti", "--quant_mtp", "mix"]'
    assert run_msmodelslim.main(machine.options(f"--set=weights.msmodelslim.flags={flags}")) == 0


@pytest.mark.parametrize(
    "fault, said",
    [
        ("oom", "Likely cause: an NPU has too little free memory"),
        ("killed", "was ended by signal 9"),
        ("fa2", "Likely cause: a modeling file still wants flash_attn"),
        ("short", "its result is not whole: 1 of 2 shards missing or empty"),
        ("cut", "its result is not whole: 1 of 2 shards damaged"),
        ("zeros", "its result is not whole: 1 of 2 shards damaged"),
        ("float", "its result is not whole: no matrix is int8"),
        ("layers", "its result is not whole: of 4 layers these have no tensor: 3"),
    ],
)
def test_a_tool_that_dies_is_explained_and_the_next_run_goes_on(
    fault: str, said: str, machine: Machine, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SLIM", fault)
    assert run_msmodelslim.main(machine.options()) == 1
    text = capsys.readouterr().err
    assert said in text and "the same command again" in text
    assert not machine.out.exists()
    monkeypatch.delenv("FAKE_SLIM")
    assert run_msmodelslim.main(machine.options()) == 0
    again = capsys.readouterr().err
    assert "the conversion was cut off or failed: it is done anew, into an empty folder" in again
    assert f"{machine.source}/config.json: unchanged" in again


@pytest.mark.parametrize("keep", [-1000, 5])
def test_a_damaged_source_is_refused_before_the_tool_starts(
    keep: int, machine: Machine, capsys
) -> None:
    shard = machine.source / "model-00001-of-000002.safetensors"
    shard.write_bytes(shard.read_bytes()[:keep])
    before = files(machine.root)
    assert run_msmodelslim.main(machine.options()) == 2
    said = capsys.readouterr().err
    assert f"source: found 1 of 2 shards damaged: {shard.name} " in said
    assert (
        "invoke download-weights --source=modelscope --repository=deepseek-ai/DeepSeek-R1" in said
    )
    assert f"--target={machine.source}" in said
    assert files(machine.root) == before


def test_the_stand_in_writes_what_the_source_says(machine: Machine) -> None:
    """Its result is held against ours for the same source, so that it can stand for a real one."""
    assert run_msmodelslim.main(machine.options()) == 0
    ours = machine.root / "ours"
    words = ["--source", str(machine.source), "--target", str(ours), "--threads", "2"]
    assert convert_weights.main(words) == 0
    made, expected = tensors(machine.out), tensors(ours)
    offsets = {name: one for name, one in made.items() if name.endswith("_offset")}
    assert offsets and not any(any(data) for _, _, data in offsets.values())
    assert made.keys() - offsets.keys() == expected.keys()
    for name, (dtype, shape, data) in expected.items():
        assert made[name][:2] == (dtype, shape)
        theirs = made[name][2]
        if dtype == "I8":  # theirs are for scales that are not rounded to bf16
            pairs = zip(memoryview(theirs).cast("b"), memoryview(data).cast("b"))
            assert max(abs(a - b) for a, b in pairs) <= 1, name
        elif name.endswith("_scale"):
            pairs = zip(memoryview(theirs).cast("f"), memoryview(data).cast("f"))
            assert all(abs(a - b) <= a / 256 for a, b in pairs), name
        else:
            assert theirs == data, name
    [description] = machine.out.glob("quant_model_description*.json")
    told = json.loads(description.read_text())
    assert told.pop("model_quant_type") == "W8A8_DYNAMIC"
    int8 = {name for name, (dtype, _, _) in made.items() if dtype == "I8"}
    dynamic = {name for name, kind in told.items() if kind == "W8A8_DYNAMIC"}
    assert dynamic == int8 | {f"{name}_{end}" for name in int8 for end in ("scale", "offset")}
    assert set(told) == set(made) and {told[name] for name in set(made) - dynamic} == {"FLOAT"}


def tensors(folder: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """All tensors of a folder, read with the safetensors library."""
    return {
        name: (one["dtype"], one["shape"], bytes(one["data"]))
        for path in folder.glob("*.safetensors")
        for name, one in deserialize(path.read_bytes())
    }


def test_a_killed_run_ends_the_tool_and_is_gone_on_with(machine: Machine) -> None:
    words = [sys.executable, str(SCRIPT), *machine.options()]
    environment = {**os.environ, "FAKE_SLIM": "hang"}
    child = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
    assert wait_until(lambda: any(machine.partial.glob("*.safetensors")), 60, 0.05)
    [tool] = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    child.kill()
    child.wait()
    assert wait_until(lambda: not lives(tool), 10, 0.05)
    steps = json.loads((machine.side / "state.json").read_text())["steps"]
    assert list(steps) == ["checked", "prepared"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "into an empty folder" in done.stderr and not machine.partial.exists()


def lives(pid: str) -> bool:
    """Whether a process runs; one that nobody has reaped has no command line."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


@pytest.mark.parametrize("free_kib", [0, 8, 400])
def test_a_full_disk_is_said_and_gone_on_with(free_kib: int, machine: Machine) -> None:
    """It meets the lock, the state, the log or the tool, by how much is left."""
    needs("unshare", "mount", root=True)
    disk = machine.root / "disk"
    disk.mkdir()
    words = machine.options("--set=weights.msmodelslim.free_ratio=0")
    words[words.index("--target") + 1] = str(disk / "W8A8")
    # A file fills it but for what is to be left; without that file there is space enough.
    script = """
mount -t tmpfs -o size=8m none "$1" && cd "$1" && dd if=/dev/zero of=fill bs=1k 2>/dev/null
truncate -s -"$2"k fill; shift 2
"$@"; echo "status $?"; rm fill; "$@"; echo "status $?" """
    shell = ["unshare", "-m", "bash", "-c", script, "bash", str(disk), str(free_kib)]
    done = subprocess.run([*shell, sys.executable, str(SCRIPT), *words],
                          capture_output=True, text=True)  # fmt: skip
    assert "/scripts/omnikit/" not in done.stderr, done.stderr  # the tool's traceback is all
    said = [line for line in done.stdout.splitlines() if line.startswith("status")]
    assert said == ["status 1", "status 0"], done.stderr
    assert "No space left on device" in done.stderr
    assert "What to do: free some space" in done.stderr


def test_interrupted_and_gone_on_with(machine: Machine) -> None:
    words = [sys.executable, str(SCRIPT), *machine.options()]
    environment = {**os.environ, "FAKE_SLIM": "hang"}
    child = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
    assert wait_until(lambda: any(machine.partial.glob("*.safetensors")), 60, 0.05)
    second = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert second.returncode == 2
    assert f"process {child.pid} of" in second.stderr and "is converting" in second.stderr
    child.send_signal(signal.SIGINT)
    assert "interrupted" in child.communicate(timeout=60)[1] and child.returncode == 130
    assert not records.lock_holder(machine.side / "lock")
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "into an empty folder" in done.stderr


def test_what_another_made_is_left_alone(machine: Machine, capsys) -> None:
    for folder in (machine.out, machine.partial):
        folder.mkdir()
        assert run_msmodelslim.main(machine.options()) == 2
        assert "it is there already, and was " in capsys.readouterr().err
        folder.rmdir()
    words = machine.options()
    words[words.index("--target") + 1] = str(machine.source / "x")
    assert run_msmodelslim.main(words) == 2
    assert "lie in one another" in capsys.readouterr().err


def test_a_run_cut_off_after_the_conversion_only_finishes(machine: Machine, capsys) -> None:
    assert run_msmodelslim.main(machine.options()) == 0
    state = machine.side / "state.json"
    data = json.loads(state.read_text())
    del data["steps"]["finished"]
    state.write_text(json.dumps({**data, "partial": True}))
    assert run_msmodelslim.main(machine.options("--dry-run")) == 0
    assert "finished: to do" in capsys.readouterr().out
    assert run_msmodelslim.main(machine.options()) == 0  # the renaming was done
    machine.out.rename(machine.partial)
    (machine.partial / "config.json.orig").replace(machine.partial / "config.json")
    state.write_text(json.dumps({**data, "partial": True}))
    assert run_msmodelslim.main(machine.options()) == 0
    assert json.loads((machine.out / "config.json").read_text())["num_hidden_layers"] == LAYERS
    assert len(list(machine.side.glob("log-*.txt"))) == 1


def test_other_inputs_start_anew_before_it_is_finished_and_are_refused_after(
    machine: Machine, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SLIM", "oom")
    assert run_msmodelslim.main(machine.options()) == 1
    monkeypatch.delenv("FAKE_SLIM")
    other = machine.options("--set=weights.msmodelslim.env.X=1")
    assert run_msmodelslim.main(other) == 0
    assert "what changed: weights.msmodelslim.env" in capsys.readouterr().err
    assert run_msmodelslim.main(machine.options()) == 2
    assert "from other inputs: weights.msmodelslim.env" in capsys.readouterr().err
    machine.script.unlink()  # what is finished needs neither tool nor source
    machine.source.rename(machine.root / "away")
    assert run_msmodelslim.main(other) == 0
    assert "unchanged, finished on" in capsys.readouterr().out
    next(machine.out.glob("*.safetensors")).unlink()
    assert run_msmodelslim.main(other) == 1
    assert "but now: 1 of 2 shards missing" in capsys.readouterr().err


def test_a_source_that_is_mounted_read_only_is_refused_before_anything(machine: Machine) -> None:
    """As weights often are; root may write anywhere else."""
    needs("unshare", "mount", root=True)
    mount = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'
    words = ["unshare", "-m", "bash", "-c", mount, "bash", str(machine.source.parent)]
    words += [sys.executable, str(SCRIPT), *machine.options()]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert f"2 files to edit, but {machine.source} cannot be written" in done.stderr
    assert f"GiB free in {machine.source.parent}, not writable" in done.stderr
    assert not machine.side.exists()
