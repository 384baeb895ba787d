"""Stand-in sources of omni-infer and vLLM as real git repositories, built by a real pip.

Like the real ones: the build's script has no "set -e", calls python by its name, checks out vLLM's
version by its tag and patches it, and leaves the wheels in build/dist. Their packages have a build
backend in the tree itself, so nothing is downloaded. While the file $HOLD is there, the script
stops after vLLM's wheel.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BACKEND = """
import os
import zipfile

NAME, VERSION, MODULE = "{name}", "{version}", "{module}"


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    file = f"{{NAME}}-{{VERSION}}-py3-none-any.whl"
    info = f"{{NAME}}-{{VERSION}}.dist-info"
    with zipfile.ZipFile(os.path.join(wheel_directory, file), "w") as made:
        def add(name, text):
            made.writestr(zipfile.ZipInfo(name), text)

        add(f"{{MODULE}}/__init__.py", open(f"{{MODULE}}/__init__.py").read())
        needs = "{needs}"
        lines = f"Metadata-Version: 2.1\\nName: {{NAME}}\\nVersion: {{VERSION}}\\n"
        add(f"{{info}}/METADATA", lines + (f"Requires-Dist: {{needs}}\\n" if needs else ""))
        add(f"{{info}}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        names = [*made.namelist(), f"{{info}}/RECORD"]
        add(f"{{info}}/RECORD", "".join(f"{{name}},,\\n" for name in names))
    return file


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    file = f"{{NAME}}-{{VERSION}}-py3-none-any.whl"
    info = f"{{NAME}}-{{VERSION}}.dist-info"
    with zipfile.ZipFile(os.path.join(wheel_directory, file), "w") as made:
        made.writestr(f"{{NAME}}.pth", os.getcwd() + "\\n")
        made.writestr(f"{{info}}/METADATA",
            f"Metadata-Version: 2.1\\nName: {{NAME}}\\nVersion: {{VERSION}}\\n")
        made.writestr(f"{{info}}/WHEEL",
            "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        names = [*made.namelist(), f"{{info}}/RECORD"]
        made.writestr(f"{{info}}/RECORD", "".join(f"{{name}},,\\n" for name in names))
    return file
"""
_PROJECT = """[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
_BUILD = """BUILD_ROOT="$(dirname "$(dirname "$(realpath "$0")")")"
cd $BUILD_ROOT/build
mkdir -p dist
cd $BUILD_ROOT/infer_engines
./bash_install_code.sh
cd vllm
WHEEL="python -m pip wheel -q --no-deps --no-build-isolation --disable-pip-version-check"
$WHEEL -w $BUILD_ROOT/build/dist .
test ! -e "$HOLD" || sleep 600
cd $BUILD_ROOT
$WHEEL -w $BUILD_ROOT/build/dist .
cd $PWD
"""
_INSTALL_CODE = """#!/bin/bash
set -e
cd vllm
git checkout v0.9.0
git apply --whitespace=nowarn ../../patches/one.patch
"""
_PATCH = """--- a/vllm/__init__.py
+++ b/vllm/__init__.py
@@ -1 +1,2 @@
 value = 1
+patched = True
"""


def git(folder: Path, *words: str) -> str:
    """Run git in a folder; what it printed."""
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    who = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", *who, *words], cwd=folder, env=env, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def commit(folder: Path, text: str = "a change", tag: str = "") -> str:
    """Commit all that is there; the commit."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", text)
    if tag:
        git(folder, "tag", "-a", tag, "-m", tag)
    return git(folder, "rev-parse", "HEAD")


def _package(folder: Path, name: str, version: str, module: str, needs: str = "") -> None:
    (folder / module).mkdir(parents=True)
    (folder / module / "__init__.py").write_text("value = 1\n")
    text = _BACKEND.format(name=name, version=version, module=module, needs=needs)
    (folder / "backend.py").write_text(text)
    (folder / "pyproject.toml").write_text(_PROJECT)
    (folder / ".gitignore").write_text("__pycache__/\n*.egg-info/\n/dist/\n")


def make_tree(folder: Path) -> Path:
    """omni-infer's source with vLLM's in it, as one tree without git."""
    _package(folder, "omni_infer", "0.4.1", "omni")
    _package(folder / "infer_engines" / "vllm", "vllm", "0.9.0", "vllm")
    (folder / "README.md").write_text("omni-infer\n")
    return folder


# As upstream's: from infer_engines, arguments with defaults, vLLM's version by its tag.
_PATCH_SCRIPT = """#!/bin/bash
set -e

PATCH_ROOT=${1:-../../omni/adaptors/vllm/patches/}
VLLM_PATH=${2:-./vllm}

cd ${VLLM_PATH}
git checkout v0.9.0
git apply --whitespace=nowarn $PATCH_ROOT/scale_out.patch
git apply --whitespace=nowarn $PATCH_ROOT/new_file.patch
# git apply --whitespace=nowarn $PATCH_ROOT/left_out.patch
git apply --whitespace=nowarn $PATCH_ROOT/on_top.patch
"""
PATCHES = ("scale_out.patch", "new_file.patch", "on_top.patch")
PATCH_SCRIPT = "infer_engines/bash_install_code.sh"


def make_patchable(folder: Path) -> Path:
    """omni-infer's source with patches, and in it a clone of vLLM that lacks them.

    The last patch changes what the first one wrote.
    """
    make_tree(folder)
    vllm, patches = folder / "infer_engines" / "vllm", folder / "omni/adaptors/vllm/patches"
    core = vllm / "vllm" / "core.py"
    core.write_text("".join(f"line {number}\n" for number in range(1, 41)))
    git(vllm, "init", "--quiet")
    commit(vllm, "0.9.0", "v0.9.0")
    patches.mkdir(parents=True)

    def patch(name: str) -> None:
        git(vllm, "add", "--all")
        (patches / name).write_text(git(vllm, "diff", "--cached", "HEAD") + "\n")
        git(vllm, "commit", "--quiet", "-m", name)

    core.write_text(core.read_text().replace("line 20\n", "line 20\nrank = local_rank\n"))
    patch("scale_out.patch")
    (vllm / "vllm" / "scale.py").write_text("servers = 1\n")
    patch("new_file.patch")
    core.write_text(core.read_text().replace("rank = local_rank", "rank = local_rank + offset"))
    (vllm / "vllm" / "__init__.py").write_text("value = 1\npatched = True\n")
    patch("on_top.patch")
    core.write_text(core.read_text().replace("line 30\n", "line thirty\n"))
    patch("left_out.patch")
    git(vllm, "reset", "--quiet", "--hard", "v0.9.0")
    (folder / PATCH_SCRIPT).write_text(_PATCH_SCRIPT)
    return folder


def set_version(folder: Path, old: str, new: str) -> None:
    """Make a stand-in package another version."""
    backend = folder / "backend.py"
    backend.write_text(backend.read_text().replace(f'"{old}"', f'"{new}"'))


@dataclass(frozen=True)
class Sources:
    """The two repositories. omniinfer_commit, vllm_commit: of their tags v0.4.1 and v0.9.0."""

    omniinfer: Path
    vllm: Path
    omniinfer_commit: str
    vllm_commit: str


def make_sources(folder: Path) -> Sources:
    """Both repositories, each with its tag, and a later commit on its branch main."""
    omni, vllm = folder / "omniinfer.git", folder / "vllm.git"
    _package(omni, "omni_infer", "0.4.1", "omni")
    _package(vllm, "vllm", "0.9.0", "vllm")
    (omni / "build").mkdir()
    (omni / "build/build.sh").write_text(_BUILD)
    (omni / "infer_engines").mkdir()
    (omni / "infer_engines/bash_install_code.sh").write_text(_INSTALL_CODE)
    (omni / "infer_engines/bash_install_code.sh").chmod(0o755)
    (omni / "patches").mkdir()
    (omni / "patches/one.patch").write_text(_PATCH)
    commits = []
    for place, tag in ((omni, "v0.4.1"), (vllm, "v0.9.0")):
        git(place, "init", "--quiet")
        commit(place, "first")
        commits.append(commit(place, "second", tag))
        (place / "later.txt").write_text("later\n")
        commit(place, "third")
    return Sources(omni, vllm, *commits)


def parameters(sources: Sources, folder: Path, **more: Any) -> dict[str, Any]:
    """What the jobs are told, for a folder."""
    return {
        "dir": str(folder),
        "omniinfer": {"urls": [f"file://{sources.omniinfer}"], "ref": "v0.4.1", "commit": None},
        "vllm": {"urls": [f"file://{sources.vllm}"], "ref": "v0.9.0", "commit": None},
        "attempts": 3,
        "delay_s": 0.05,
        "stall_s": 20,
        "free_mib": 1,
        "http_proxy": None,
        "build": ["bash", "build/build.sh"],
        "patches": None,
        "python": sys.executable,
        "packages": ["omni_infer", "vllm", "omni_placement"],
        "optional": ["omni_placement"],
        "container": None,
        **more,
    }
