"""The twin of omni-infer's image, laid out as the real one, from the files in tests/twin; and the
packages of vllm-ascend's twin, which shares them.

It has this machine's Python and nginx. Its vllm and ray compute nothing and keep the real rules
(tests/twin/site), CANN's variables are in root's ~/.bashrc alone, nginx is at its place.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Optional, Sequence

import pip
import server_image
import vllm_parser
from docker_host import DockerHost, static_files
from needs import needs

from hostkit.base import run

TESTS = Path(__file__).resolve().parents[1]
TWIN = TESTS / "twin"
# The tag has its date, as omni-infer's have; v0.4.1 is of September 2025.
TWIN_IMAGE = "omnikit-test/omniinfer:202509302026"
_PROGRAMS = ("bash", "cat", "dirname", "env", "head", "id", "ip", "ls", "mkdir", "realpath", "rm")
_PROGRAMS += ("sed", "sleep", "uname")
_TOOLKIT = "usr/local/Ascend/ascend-toolkit"
MODULES = (
    "ngx_http_set_request_id_module",
    "ngx_http_prefill_module",
    *(
        f"ngx_http_upstream_{name}_module"
        for name in (
            "auto_balance_controller",
            "greedy_timeout",
            "least_total_load",
            "length_balance",
            "pd_score_balance",
            "prefill_score_balance",
            "weighted_least_active",
        )
    ),
)
_READ = """
import json, sys
from vllm.twin import arguments
answers = []
for line in json.load(sys.stdin):
    by_module = line[1:2] == ["-m"]
    try:
        values = arguments.read(line[3:] if by_module else line[1:], by_module)
        answers.append({k: str(v) for k, v in vars(values).items()})
    except (SystemExit, ValueError):
        answers.append(None)
json.dump(answers, sys.stdout)
"""
ASCEND_SITE = "/opt/vllm-ascend/site"
PLACEMENT = "config_p.yaml", "config_d.yaml"
LIBRARIES = "libascendcl.so", "libhccl.so"


def arguments() -> Path:
    """The description of vLLM 0.9.0's argument parser, made once with that very vLLM."""
    python = vllm_parser.install()
    program = TESTS / "parser" / "describe_arguments.py"
    made = vllm_parser.VENV / "arguments.json"
    stamp = made.with_suffix(".sha256")
    wanted = hashlib.sha256(program.read_bytes() + vllm_parser.PINS.read_bytes()).hexdigest()
    with (vllm_parser.VENV / "arguments.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test may be at it
        if not stamp.exists() or stamp.read_text() != wanted:
            # Not in the project's folder: what lies there must not be imported.
            done = run.run([python, program], env=vllm_parser.QUIET, cwd=program.parent)
            made.write_text(done.out)
            stamp.write_text(wanted)
    return made


def packages(folder: Path, engine: str = "omni-infer") -> None:
    """The twin's Python packages, as an installation of an engine has them.

    Versions that `pip list` would show and that no source names are left out.
    """
    shutil.copytree(
        TWIN / "site", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    release = TWIN / f"{engine}.json"
    twin = folder / "vllm" / "twin"
    shutil.copy(release, twin / "release.json")
    described = TWIN / f"{engine}-arguments.json"
    shutil.copy(described if described.exists() else arguments(), twin / "arguments.json")
    for name, version in json.loads(release.read_text())["packages"].items():
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(text)
        (info / "INSTALLER").write_text("pip\n")


def values_of(site: Path, lines: Sequence[Sequence[str]]) -> list[Optional[dict[str, str]]]:
    """What the twin's parser makes of command lines, as texts; None of those it refuses."""
    done = subprocess.run(
        [sys.executable, "-c", _READ],
        input=json.dumps(lines),
        env={"PYTHONPATH": str(site)},
        check=True,
        capture_output=True,
        text=True,
    )
    found: list[Optional[dict[str, str]]] = json.loads(done.stdout)
    return found


def save_twin_image(host: DockerHost, archive: Path) -> Path:
    """Make the image in an engine, and write it into an archive with its check sum beside."""
    needs("nginx", "njs")
    tree = archive.with_name("tree")
    python = server_image.furnish(
        tree,
        _PROGRAMS,
        {
            "/opt/nginx/nginx": "/usr/sbin/nginx",
            "/opt/nginx/ngx_http_js_module.so": "/usr/lib/nginx/modules/ngx_http_js_module.so",
        },
    )
    shutil.copytree(
        Path(pip.__file__).parent,
        tree / sysconfig.get_path("stdlib").lstrip("/") / "pip",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    asked = "import site; print(site.getsitepackages()[0])"
    site = subprocess.run([python, "-c", asked], check=True, capture_output=True, text=True)
    packages(tree / site.stdout.strip().lstrip("/"))
    _vllm_ascend(tree)
    _nginx(tree)
    _cann(tree)
    _source(tree)
    for name in ("vllm", "ray", "pip"):
        _program(TWIN / "bin" / name, tree / "usr/local/bin" / name, python)
    (tree / "usr/bin").mkdir(parents=True, exist_ok=True)
    (tree / "usr/bin/env").symlink_to("/bin/env")
    for folder in ("tmp", "home", "data"):
        (tree / folder).mkdir(exist_ok=True)
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    server_image.make(host, tree, TWIN_IMAGE, [f"ENV {path}", "WORKDIR /workspace"])
    return server_image.save(host, TWIN_IMAGE, archive)


def _program(source: Path, place: Path, python: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(source.read_text().replace("/usr/bin/python3", python, 1))
    place.chmod(0o755)


def _nginx(tree: Path) -> None:
    """The program at omni-infer's place, linked into PATH, and its modules by name."""
    _program(TWIN / "bin" / "nginx", tree / "usr/local/nginx/nginx", "/bin/python3")
    (tree / "usr/local/bin").mkdir(exist_ok=True)
    (tree / "usr/local/bin/nginx").symlink_to("/usr/local/nginx/nginx")
    shutil.copy(TWIN / "pd.js", tree / "opt/nginx/pd.js")
    modules = tree / "usr/local/nginx/modules"
    modules.mkdir()
    for name in MODULES:
        (modules / f"{name}.so").write_text("stands in for a module that the twin does in njs\n")
    for folder in ("var/log/nginx", "var/lib/nginx"):
        (tree / folder).mkdir(parents=True)


def _cann(tree: Path) -> None:
    """Shared objects in folders that only root's ~/.bashrc names."""
    (tree / "root").mkdir(exist_ok=True)
    shutil.copy(TWIN / "bashrc", tree / "root/.bashrc")
    for place in (_TOOLKIT, "usr/local/Ascend/nnal/atb"):
        (tree / place).mkdir(parents=True)
        shutil.copy(TWIN / "set_env", tree / place / "set_env.sh")
    libraries = tree / _TOOLKIT / "latest/lib64"
    libraries.mkdir(parents=True)
    # Any shared object will do: what counts is whether the loader finds it.
    bash = str(shutil.which("bash"))
    real = next(path for name, path in static_files({"/bin/bash": bash}).items() if ".so" in name)
    for name in LIBRARIES:
        shutil.copy(real, libraries / name)


def _vllm_ascend(tree: Path) -> None:
    """The packages of vllm-ascend's image, which its /etc/profile puts in front, as it does CANN's
    variables: one image is shipped for the twins of both engines.
    """
    packages(tree / ASCEND_SITE.lstrip("/"), "vllm-ascend")
    sources = [f"source /{place}/set_env.sh" for place in (_TOOLKIT, "usr/local/Ascend/nnal/atb")]
    lines = [*sources, f"export PYTHONPATH={ASCEND_SITE}:$PYTHONPATH"]
    (tree / "etc/profile").write_text("\n".join(lines) + "\n")


def _source(tree: Path) -> None:
    """What servers read of omni-infer's source, which the image has."""
    place = tree / "workspace/omniinfer"
    (place / "tools/scripts").mkdir(parents=True)
    configs = place / "tests/test_config"
    configs.mkdir(parents=True)
    for name in PLACEMENT:
        (configs / name).write_text("# placement of experts: the twin only looks for this file\n")
