"""An offline bundle: what is in it, that it is refused when it is another, and a deploy from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Callable

import bundle
import pytest
from docker_host import BASE_IMAGE
from image_cases import forget, image_id, use
from small_wheel import lock_text, small_wheel

from hostkit.base.errors import InputError
from omnikit.config import config
from omnikit.engine import pins
from omnikit.images import recipes
from omnikit.prepare import local_setup
from omnikit.topology.topology import make_plan

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = str(ROOT / "tests" / "environments" / "breadth.yaml")
SERVERS = f"server.command=[python3, {ROOT}/tests/kit/fleet_server.py]"
WORDS = ("-e", ENVIRONMENT, "--set", SERVERS, "--set", "proxy.kind=nginx-lua")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private key and its public half, made as the manual says."""
    private, public = (tmp_path_factory.mktemp("keys") / name for name in ("k.pem", "k.pub"))
    words = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"]
    subprocess.run([*words, "-out", private], check=True, capture_output=True)
    words = ["openssl", "rsa", "-in", str(private), "-pubout", "-out", str(public)]
    subprocess.run(words, check=True, capture_output=True)
    return private, public


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., int]:
    """Makes bundles with one small wheel in place of those of the toolkit."""
    index = tmp_path_factory.mktemp("index")
    lock = index / "lock.txt"
    lock.write_text(lock_text(small_wheel(index, "small", "1.0")))

    def made(out: Path, *words: str) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PIP_NO_INDEX", "1")
            patch.setenv("PIP_FIND_LINKS", str(index))
            patch.setattr(bundle, "LOCKS", {"toolkit": lock})
            return bundle.main(["--out", str(out), *WORDS, *words])

    return made


@pytest.fixture(scope="module")
def signed(make, keys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("signed") / "bundle"
    assert make(out, "--key", str(keys[0])) == 0
    return out


def install(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    argv = ["bash", str(folder / "install.sh"), *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True)


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode)
        for path in bundle.files_of(folder)
    }


def test_two_builds_of_the_same_are_the_same_to_the_byte(signed, make, keys, tmp_path) -> None:
    assert make(tmp_path / "again", "--key", str(keys[0])) == 0
    assert content(tmp_path / "again") == content(signed)
    with tarfile.open(signed / "toolkit.tar") as archive:
        found = archive.getmembers()
        assert {one.uid for one in found} == {0} and len({one.mtime for one in found}) == 1
        names = [one.name for one in found]
    assert names == sorted(names) and {"tasks.py", "scripts/deploy.py", "Makefile"} < set(names)
    assert not any(name.endswith(".local.yaml") for name in names)


def test_it_holds_what_a_deploy_needs(signed: Path) -> None:
    assert {*content(signed)} == {
        *("SHA256SUMS", "SHA256SUMS.sig", "key.pem", "install.sh", "target", "toolkit.tar"),
        *("sbom.json", "weights.sha256", "wheels/small-1.0-py3-none-any.whl"),
        *("configuration/bundle.local.yaml", "configuration/environments/breadth.local.yaml"),
    }


FILES = (
    *("SHA256SUMS", "SHA256SUMS.sig", "key.pem", "install.sh", "target", "toolkit.tar"),
    *("sbom.json", "wheels/small-1.0-py3-none-any.whl"),
    *("configuration/bundle.local.yaml", "configuration/environments/breadth.local.yaml"),
)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_in_any_file_is_refused(name: str, signed, keys, tmp_path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(signed, copy)
    data = bytearray((copy / name).read_bytes())
    # Of the script a byte of its first comment: one that still runs has to find it by itself.
    data[40 if name == "install.sh" else len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    done = install(copy, "--key", keys[1], tmp_path / "there")
    assert done.returncode == 2, done
    assert name in done.stderr and "expected" in done.stderr and "found" in done.stderr
    assert "What to do: nothing was changed; copy the bundle again" in done.stderr
    assert not (tmp_path / "there").exists()


def test_more_or_fewer_files_are_refused(signed, keys, tmp_path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(signed, copy)
    (copy / "wheels" / "other.whl").write_text("")
    (copy / "wheels" / "link.whl").symlink_to("/etc/passwd")
    (copy / "sbom.json").unlink()
    done = install(copy, "--key", keys[1], tmp_path / "there")
    assert done.returncode == 2
    assert "wheels/other.whl: does not belong to the bundle" in done.stderr
    assert "wheels/link.whl: is no plain file" in done.stderr
    assert "sbom.json: is missing, expected SHA-256" in done.stderr


def test_it_is_trusted_only_by_a_key_or_a_digest_from_elsewhere(
    signed, make, keys, tmp_path, capsys
) -> None:
    assert "it is not said what to trust" in install(signed, tmp_path / "there").stderr
    other = tmp_path / "other.pub"
    shutil.copy(signed / "key.pem", other)
    assert install(signed, "--key", other, "--only-verify").returncode == 0
    inside = install(signed, "--key", signed / "key.pem", "--only-verify")
    assert inside.returncode == 2 and "lies in the bundle" in inside.stderr
    other.write_text(keys[1].read_text().replace("M", "N", 1))
    assert "or name the right key" in install(signed, "--key", other, "--only-verify").stderr
    capsys.readouterr()
    assert make(tmp_path / "unsigned") == 0
    digest = capsys.readouterr().out.strip()
    unsigned = tmp_path / "unsigned"
    assert install(unsigned, "--digest", digest, "--only-verify").returncode == 0
    done = install(unsigned, "--digest", "0" * 64, "--only-verify")
    assert done.returncode == 2 and digest in done.stderr
    done = install(unsigned, "--key", keys[1], "--only-verify")
    assert done.returncode == 2 and "the bundle is not signed" in done.stderr


def test_a_machine_or_a_folder_that_does_not_fit_is_refused(signed, keys, tmp_path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").write_text("mine")
    python = {**os.environ, "PYTHON": "/bin/false"}
    words = ["bash", str(signed / "install.sh"), "--key", str(keys[1])]
    done = subprocess.run([*words, str(full)], capture_output=True, text=True, env=python)
    assert done.returncode == 2 and "wheels are for Python" in done.stderr
    done = install(signed, "--key", keys[1], full)
    assert done.returncode == 2 and "has something else" in done.stderr
    assert [path.name for path in full.iterdir()] == ["file"]


def test_what_cannot_be_made_leaves_nothing(make, tmp_path, capsys) -> None:
    words = ("--set", "model.generate_seed=null", "--set", f"model.path={tmp_path}/no")
    assert make(tmp_path / "out", *words) == 2
    assert "the weights are not here" in capsys.readouterr().err
    assert make(tmp_path / "out", "--key", str(tmp_path / "no.pem")) == 2
    assert "openssl genpkey" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_weights_go_along_as_a_list_for_sha256sum(make, tmp_path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    words = ("--set", "model.generate_seed=null", "--weights", str(model))
    assert make(tmp_path / "out", *words) == 0
    check = ["sha256sum", "--check", "--strict", str(tmp_path / "out" / "weights.sha256")]
    done = subprocess.run(check, cwd=model, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count(": OK") == 2
    listed = str(tmp_path / "out" / "weights.sha256")
    assert make(tmp_path / "from-a-list", *words[:3], listed) == 0
    assert content(tmp_path / "from-a-list") == content(tmp_path / "out")
    (model / "model.safetensors").write_bytes(b"weighty")
    assert make(tmp_path / "no", *words[:3], str(model / "model.safetensors")) == 2
    assert subprocess.run(check, cwd=model, capture_output=True).returncode == 1


IMAGE = "registry.invalid/team/bundled:1"


@pytest.mark.slow
def test_an_image_goes_along_and_a_deploy_loads_it(docker_host, tmp_path, monkeypatch) -> None:
    use(monkeypatch, docker_host)
    docker_host.docker("tag", BASE_IMAGE, IMAGE)
    words = ["container.build=null", f"container.image={IMAGE}", "image.free_mib=1"]
    environment = str(ROOT / "tests" / "environments" / "containers.yaml")
    settings = config.load(environment, [], words)
    plan = make_plan(settings)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        assert bundle.add_image(tmp_path / name, settings, plan, None) == "bundled-1.tar"
    assert content(tmp_path / "a") == content(tmp_path / "b")
    forget(docker_host, IMAGE)
    archive = tmp_path / "a" / "bundled-1.tar"
    settings = config.load(environment, [], [*words, f"image.archive={archive}"])
    local_setup.ensure(settings, plan, print)
    assert image_id(docker_host, IMAGE) == image_id(docker_host, BASE_IMAGE)
    forget(docker_host, IMAGE)
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1  # in a layer
    archive.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        local_setup.ensure(settings, plan, print)


# What a deploy of servers that are here can do without, and what needs it.
LEFT_OUT = {
    *("contourpy", "cycler", "filelock", "fonttools", "fsspec", "hf-xet"),
    *("huggingface-hub", "kiwisolver", "llvmlite", "matplotlib", "modelscope"),
    *("pillow", "python-dateutil", "six", "tqdm"),
}


@pytest.mark.slow
@pytest.mark.needs("nginx", "lua", "unshare", "ip", root=True)
def test_a_deploy_from_it_where_there_is_no_network(keys, tmp_path: Path) -> None:
    """A toolkit as it is, but for the packages that this environment has no use for."""
    toolkit, there = tmp_path / "toolkit", tmp_path / "the other side"
    for name, path in recipes.toolkit_files().items():
        (toolkit / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, toolkit / name)
    locked = pins.read_entries(ROOT / "requirements.txt")
    kept = [entry for entry in locked if entry.name not in LEFT_OUT]
    (toolkit / "requirements.txt").write_text("".join(entry.text for entry in kept))
    words = [sys.executable, str(toolkit / "scripts" / "bundle.py"), *WORDS]
    words += ["--out", str(tmp_path / "bundle"), "--key", str(keys[0])]
    made = subprocess.run(words, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    shutil.rmtree(toolkit)
    script = """set -e; ip link set lo up
    PYTHON=$4 bash "$1/install.sh" --key "$2" "$3"
    trap 'make -C "$3" stop ENVIRONMENT=breadth' EXIT
    make -C "$3" deploy ENVIRONMENT=breadth"""
    argv = ["unshare", "--net", "bash", "-c", script, "bash", str(tmp_path / "bundle")]
    python = str(Path(sys.executable).resolve())
    # Whose settings and records are elsewhere has set that up there.
    env = {name: value for name, value in os.environ.items() if name != "OMNIKIT_SITE"}
    words = [*argv, str(keys[1]), str(there), python]
    done = subprocess.run(words, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "44 of 44 prompt tokens transferred" in done.stderr
    words = ["bash", str(tmp_path / "bundle" / "install.sh"), "--key", str(keys[1]), str(there)]
    again = subprocess.run(words, capture_output=True, text=True, env={**env, "PYTHON": python})
    assert again.returncode == 0 and "installing" not in again.stderr, again.stderr
