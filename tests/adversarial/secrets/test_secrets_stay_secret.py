"""A secret is a reference in every file, and is read late, by the program that needs it alone.

It stands on no command line, in nothing that is printed, and in no file that others may read,
from the file's first byte on.
"""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any, Iterator

import pytest
from port_rooms import free_port

from hostkit.base.errors import InputError
from hostkit.base.writing import write_private
from omnikit.config import config
from omnikit.config.config import Config, load
from omnikit.config.layers import control_folder
from omnikit.deploy import ansible_export, plan_report
from omnikit.prepare.deployment import prepare

ROOT = Path(__file__).resolve().parents[3]
SECRET = "xyzzy-5ecret '\"$(id) ${plan.host_ip}"

OPEN = [
    "weights.download.token={}",
    "image.credentials=user:{}",
    "hosts.local.password={}",
    "server.env.HF_TOKEN={}",
    "server.args.api-key={}",
    "roles.prefill.server.env.DB_PASSWORD={}",
    'server.args.kv-transfer-config={{"auth_token": "{}"}}',
    "container.env.HF_TOKEN={}",
    "container.build_args.API_KEY={}",
]


@pytest.mark.parametrize("setting", OPEN)
def test_a_secret_in_the_open_is_refused_and_not_repeated(setting: str, tmp_path: Path) -> None:
    """On the command line, in a variable and in a file: exit 2, its place, what to write."""
    name, _, value = setting.format("xyzzy5ecret").partition("=")
    *above, last = name.split(".")
    file = tmp_path / "site.yaml"
    nested = "".join(f"{'  ' * n}{step}:\n" for n, step in enumerate(above))
    file.write_text(f"{nested}{'  ' * len(above)}{last}: {value}\n")
    for given, where in (
        ({"assignments": [f"{name}={value}"]}, "--set"),
        ({"files": [str(file)]}, f"{file}:{len(above) + 1}"),
    ):
        with pytest.raises(InputError) as caught:
            load("local", environ={}, **given)  # type: ignore[arg-type]
        said = str(caught.value)
        assert caught.value.exit_code == 2 and "xyzzy" not in said
        assert where in said and "secret" in said
        assert "{file: PATH}" in said or "take it out" in said


def test_a_flag_that_the_engine_reads_from_its_command_line_alone_takes_no_secret() -> None:
    from omnikit.topology.topology import make_plan

    given = ["server.args.hub-login={variable: HUB}"]
    with pytest.raises(InputError, match="every user of the host can read") as caught:
        make_plan(load("local", assignments=given, environ={}))
    assert "engine.secret_flags" in str(caught.value)


def _loaded(folder: Path) -> Config:
    (folder / "key").write_text(SECRET + "\n")
    given = [
        f"server.args.api-key={{file: {folder}/key}}",
        "server.env.HF_TOKEN={variable: OUR_TOKEN}",
        f"roles.decode.server.env.DB_PASSWORD={{file: {folder}/key}}",
    ]
    return load("local", assignments=given, environ={})


def test_rendered_files_and_what_is_kept_have_references_alone(tmp_path: Path) -> None:
    """They are shown, compared, exported and kept as releases: the secret is not even read."""
    loaded = _loaded(tmp_path)
    (tmp_path / "key").unlink()
    kind = {"kind": "nginx-lua", "nginx": "/usr/sbin/nginx", "modules_dir": "/usr/lib"}
    made = prepare(loaded, {}, kind, {})
    text = json.dumps({host: dict(files) for host, files in made.files.items()})
    assert "xyzzy" not in text and "secrets.env" in text
    with pytest.raises(InputError, match="that holds a secret is not set"):
        made.write()


def test_another_secret_is_a_change_and_the_same_one_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUR_TOKEN", "one")
    kind = {"kind": "nginx-lua", "nginx": "/usr/sbin/nginx", "modules_dir": "/usr/lib"}
    made = prepare(_loaded(tmp_path), {}, kind, {})

    def used() -> dict[str, Any]:
        sent = made.sent("local")
        data: dict[str, Any] = json.loads(sent["host.json"])
        assert "xyzzy" not in sent["host.json"]
        return {node["name"]: node.get("secrets") for node in data["nodes"]}

    first = used()
    assert used() == first
    (tmp_path / "key").write_text("other\n")
    changed = {name for name, sums in used().items() if sums != first[name]}
    assert changed == {"p0", "p1", "d0"}


def test_who_is_sent_files_is_sent_their_secrets_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Archives that are written for Ansible lacked the servers' key, without which none starts."""
    monkeypatch.setenv("OUR_TOKEN", "one")
    key = tmp_path / "internal"
    key.write_text("0123456789abcdef0123456789\n")
    kind = {"kind": "nginx-lua", "nginx": "/usr/sbin/nginx", "modules_dir": "/usr/lib"}
    given = [f"proxy.internal_key={{file: {key}}}", "server.env.HF_TOKEN={variable: OUR_TOKEN}"]
    made = prepare(load("local", assignments=given, environ={}), {}, kind, {})
    wanted = {"internal_key", "p0/secrets.env", "c0/pd_keys.lua"}
    assert wanted <= set(made.sent("local")) and not wanted & set(made.files["local"])
    exported = ansible_export.files(made, tmp_path / "out", [])
    with zipfile.ZipFile(io.BytesIO(exported["archives/local/incoming.pyz"])) as archive:
        assert {f"bundle/{name}" for name in wanted} <= set(archive.namelist())
    # What was sent is what there is: nothing of it is told as to be removed.
    monkeypatch.setattr(plan_report, "_local_files", lambda host: made.sent("local"))
    monkeypatch.setattr(plan_report.needed, "look", lambda data: {})
    assert plan_report._changes(made, made.plan.hosts[0])["files"] == {}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_private_files_are_private_from_their_first_byte(umask: int, tmp_path: Path) -> None:
    """Watched while they are written; also where an earlier version left them open."""
    place = tmp_path / "control" / "host" / "incoming.pyz"
    seen: set[int] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for folder, folders, names in os.walk(tmp_path / "control"):
                for name in [*folders, *names]:
                    try:
                        seen.add(stat.S_IMODE((Path(folder) / name).lstat().st_mode))
                    except OSError:
                        continue

    before = os.umask(umask)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for number in range(50):
            write_private(place, os.urandom(1 << 16))
            if number % 10 == 5:
                place.chmod(0o644)
    finally:
        done.set()
        watcher.join()
        os.umask(before)
    assert seen - {0o644} <= {0o600, 0o700}
    assert stat.S_IMODE(place.stat().st_mode) == 0o600


class Served:
    """A deployment of one server whose secrets come from a file and a variable."""

    def __init__(self, folder: Path) -> None:
        self.work_dir = folder / "work"
        self.key = folder / "key"
        self.key.write_text(SECRET + "\n")
        self.file = folder / "secretive.yaml"
        self.file.write_text(
            f"profile: {{engine: cpu, model: tiny-qwen2}}\npaths: {{work_dir: {self.work_dir}}}\n"
            f"server:\n  command: [python3, {ROOT}/tests/kit/fleet_server.py]\n"
            f"  args: {{api-key: {{file: {self.key}}}}}\n"
            "  env: {HF_TOKEN: {variable: OUR_TOKEN}}\n"
            "engine: {venv: null, requirements: null}\n"
            "hosts: {local: {address: 127.0.0.1, connection: local}}\n"
            "topology: {colocated: [{hosts: [local]}]}\n"
            f"ports: {{api_base: {free_port()}, offset: {{colocated: 0}}, ephemeral_low: 65536}}\n"
        )

    def run(self, name: str, *words: str, code: int = 0) -> str:
        argv = [sys.executable, f"scripts/{name}", "-e", str(self.file), *words]
        done = subprocess.run(
            argv,
            cwd=ROOT,
            env={**os.environ, "OUR_TOKEN": "xyzzy-of-a-variable"},
            capture_output=True,
            text=True,
            timeout=400,
            start_new_session=True,
        )
        said = done.stdout + done.stderr
        assert done.returncode == code, said
        assert "xyzzy" not in said
        return said

    def server(self) -> int:
        nodes = json.loads(self.run("status.py", "--json"))["nodes"]
        return int(nodes[0]["servers"][0]["pid"])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    try:
        yield made
    finally:
        made.run("clean_up.py", "--yes", "--logs")


@pytest.mark.slow
def test_a_server_has_its_secrets_and_nobody_else_sees_them(served: Served) -> None:
    served.run("plan.py", "--commands", "--files")
    served.run("config.py")
    served.run("deploy.py")
    pid = served.server()
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert f"VLLM_API_KEY={SECRET}".encode() in variables
    assert b"HF_TOKEN=xyzzy-of-a-variable" in variables
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert b"xyzzy" not in process.read_bytes(), process
        except OSError:
            continue
    # Where it lies on the disk, nobody else gets to.
    for root in (served.work_dir, control_folder("secretive")):
        for path in root.rglob("*"):
            if path.is_file() and (b"xyzzy" in path.read_bytes() or path.suffix == ".pyz"):
                if path.name == "host.pyz":
                    continue  # the toolkit's code alone
                assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
                folders = [path.parent, *path.parent.parents]
                inside = [one for one in folders if root in (one, *one.parents)]
                assert any(stat.S_IMODE(one.stat().st_mode) == 0o700 for one in inside), path
    assert "nothing to change" in served.run("deploy.py")
    served.key.write_text("xyzzy-another\n")
    said = served.run("deploy.py", "--yes")
    assert "restart s0" in said and served.server() != pid


@pytest.mark.parametrize("name", ["ansible_password", "ansible_become_password"])
def test_a_password_in_the_open_in_a_foreign_file_is_an_input_and_hidden(name: str) -> None:
    """Users' inventories go on working; what is read from one is shown nowhere."""
    from hostkit.base.redact import Hidden
    from omnikit.config.schema import secret_of
    from omnikit.foreign.trees import read_yaml as read

    node = read(f"{name}: xyzzy\n", "f.yml", 4).at((name,))
    assert isinstance(node.value, Hidden) and "xyzzy" not in str(node)
    secret = secret_of(node.value)
    assert secret is not None and config.read_secret(secret, "here") == "xyzzy"
    assert "xyzzy" not in repr(secret)
