"""The commands of an installation, and what pip's failures mean."""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path
from typing import Optional

import pytest

from hostkit.base import run
from hostkit.base.errors import ActionError
from omnikit.engine import install as engine_steps
from omnikit.engine.pins import Entry, site_packages
from omnikit.engine.progress import Progress

INDEX = "https://torch.example/cpu"
SUM = "0" * 64
LOCK = {
    name: Entry(name, version, frozenset({SUM}), f"{name}=={version} --hash=sha256:{SUM}\n")
    for name, version in {"pip": "26.3", "torch": "2.13.0+cpu", "six": "1.17.0"}.items()
}


def test_the_pip_commands() -> None:
    steps = engine_steps.pip_steps(Path("/v"), LOCK, INDEX)
    pip = ("/v/bin/python", "-m", "pip", "install", "--require-hashes", "--no-deps")
    pip += ("--only-binary=:all:", "--no-compile")
    bar = ("--progress-bar", "raw")
    torch = (*pip, *bar, "-r", "/v/omnikit-torch.txt")
    assert [step.argv for step in steps] == [
        (*pip, "--retries", "1", "-r", "/v/omnikit-pip.txt"),
        torch,
        (*pip, *bar, "-r", "/v/omnikit-all.txt"),
    ]
    assert [step.otherwise for step in steps] == [None, (*torch, "--index-url", INDEX), None]


def test_every_command_installs_locked_files_alone_and_never_the_cuda_build() -> None:
    """The local version +cpu is named, or the step asks for nothing that is not locked."""
    for step in engine_steps.pip_steps(Path("/v"), LOCK, INDEX):
        for line in step.lock.splitlines():
            assert re.fullmatch(r"[a-z]+==\S+ --hash=sha256:[0-9a-f]{64}", line)
        assert "torch==2.13.0 " not in step.lock
        assert "--require-hashes" in step.argv and "--no-deps" in step.argv


def step(argv: tuple[str, ...], folder: Path, other: Optional[tuple[str, ...]] = None, lock=""):
    return engine_steps.Step("torch", argv, folder / "lock.txt", lock, other)


LOST = (
    'WARNING: Retrying (Retry(total=0)) after connection broken by \'NewConnectionError("refused")'
    "': /simple/six/"
)
NO_MATCH = "ERROR: No matching distribution found for torch==2.13.0+cpu"


@pytest.mark.parametrize(
    ("lines", "index", "what", "todo"),
    [
        ([LOST] * 50 + [NO_MATCH], None, "no package index could be reached", "PIP_INDEX_URL"),
        ([LOST, NO_MATCH], INDEX, f"the index {INDEX} could not be reached", "--torch-index"),
        ([NO_MATCH], None, "the package index has no such build", "PIP_INDEX_URL"),
        (["ERROR: [Errno 28] No space left on device"], None, "disk is full", "free some space"),
        (["ERROR: hash mismatch"], None, "pip said: ERROR: hash mismatch", "run this again"),
        ([], None, "pip said: nothing", "run this again"),
    ],
)
def test_what_pips_lines_mean(lines: list[str], index: Optional[str], what: str, todo: str) -> None:
    error = engine_steps.failure(lines, "fetching torch", index)
    assert isinstance(error, ActionError)
    assert what in error.what
    assert todo in str(error.todo)
    assert len(str(error).splitlines()) <= 3


def test_constraints_of_a_site_do_not_decide_over_locked_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With them pip finds no solution, and says nothing of an index that lacks a file."""
    with zipfile.ZipFile(tmp_path / "one-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in {
            "METADATA": "Metadata-Version: 2.1\nName: one\nVersion: 1.0\n",
            "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "RECORD": "",
        }.items():
            wheel.writestr(f"one-1.0.dist-info/{name}", text)
    (tmp_path / "site").write_text("one<1.0\n")
    (tmp_path / "pip.conf").write_text(f"[global]\nconstraint = {tmp_path}/site\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--no-deps"]
    argv = [*pip, f"--find-links={tmp_path}", "one==1.0"]
    refused = run.run(argv, check=False)
    assert refused.code == 1 and "conflict" in refused.out + refused.err
    assert run.run(argv, env=engine_steps.ENV, check=False).code == 0


def test_half_installed_packages_are_forgotten(tmp_path: Path) -> None:
    site = site_packages(tmp_path, "3.11")
    records = {"whole": "whole-1.dist-info/INSTALLER,,\n", "cut": "cut/__init__.py,,\n", "bare": ""}
    for name, record in records.items():
        (site / f"{name}-1.dist-info").mkdir(parents=True)
        if record:
            (site / f"{name}-1.dist-info" / "RECORD").write_text(record)
    engine_steps.run_pip(
        step(("/bin/true",), tmp_path), tmp_path, "3.11", 3, Progress(lambda text: None, 3600)
    )
    assert [path.name for path in site.iterdir()] == ["whole-1.dist-info"]


def test_the_second_way_is_taken_only_when_the_index_has_no_such_build(tmp_path: Path) -> None:
    said: list[str] = []
    progress = Progress(said.append, 3600)
    fails = ("/bin/sh", "-c", f"echo '{NO_MATCH}'; exit 1")
    other = ("/bin/sh", "-c", f"touch {tmp_path}/second", "--index-url", INDEX)
    engine_steps.run_pip(step(fails, tmp_path, other), tmp_path, "3.11", 1, progress)
    assert (tmp_path / "second").exists()
    assert said[-1].startswith(f"engine: torch from {INDEX}")
    (tmp_path / "second").unlink()
    broken = step(("/bin/sh", "-c", "echo 'ERROR: odd'; exit 1"), tmp_path, other)
    with pytest.raises(ActionError, match="ERROR: odd"):
        engine_steps.run_pip(broken, tmp_path, "3.11", 1, progress)
    assert not (tmp_path / "second").exists()


def test_a_dead_index_gives_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The toolkit's own pip stands in for the environment's: it asks a port where nobody is."""
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    target = str(tmp_path / "target")
    words = (sys.executable, "-m", "pip", "install", "--retries", "1", "--target", target)
    asks = step((*words, "-r", str(tmp_path / "lock.txt")), tmp_path, lock=LOCK["six"].text)
    with pytest.raises(ActionError) as caught:
        engine_steps.run_pip(asks, tmp_path, "3.11", 1, Progress(lambda text: None, 3600))
    assert "no package index could be reached" in caught.value.what
    assert "refused" in caught.value.what
    assert "PIP_INDEX_URL" in str(caught.value.todo)


def test_the_import_check_is_valid_python() -> None:
    words = engine_steps.import_words(Path("/v"))
    compile(words[-1], "import check", "exec")
    assert run.show(words).startswith("/v/bin/python -c ")


def test_vllm_is_compiled_and_what_is_imported_is_kept_whatever_the_user_has_set(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    modules = tmp_path / "lib/python3.11/site-packages"
    for name in ("vllm", "other"):
        (modules / name).mkdir(parents=True)
        (modules / name / "__init__.py").write_text("")
    engine_steps.compile_vllm(tmp_path, "3.11", Progress(lambda text: None, 3600))
    assert [path.parent.parent.name for path in modules.rglob("*.pyc")] == ["vllm"]
    import_other = [sys.executable, "-c", "import other"]
    run.run(import_other, env=engine_steps.ENV, cwd=modules)
    assert len(list(modules.rglob("*.pyc"))) == 2
