"""The steps from source on hosts: what jobs are told, what is shown, what is reported."""

from __future__ import annotations

from pathlib import Path

import pytest
from settings_file import FLEET, load, load_site

from hostkit.base.errors import ActionError, InputError
from omnikit.config.layers import PROJECT
from omnikit.fleet.jobs import Done
from omnikit.source import build
from omnikit.topology.topology import make_plan

HERE = build.HERE
STEPS = build.STEPS


def test_this_machine_uses_the_local_folder(tmp_path: Path) -> None:
    text = "paths: {code_dir: /data/omniinfer, local_code_dir: src/omniinfer}\n"
    config = load_site(tmp_path, text)
    given = build.parameters(config, None, [HERE], STEPS)[HERE]
    assert given["dir"] == str(PROJECT / "src/omniinfer")
    assert given["container"] is None
    inside = build.parameters(config, None, [HERE], STEPS, container="p0")[HERE]
    assert (inside["dir"], inside["container"]) == ("/data/omniinfer", "p0")


def test_hosts_use_their_folder_and_all_settings_are_handed_on(tmp_path: Path) -> None:
    text = "paths: {code_dir: /data/omniinfer, local_code_dir: /src}\n"
    text += "source: {attempts: 7, free_mib: 3, vllm_commit: " + "a" * 40 + "}\n"
    text += "fleet: {http_proxy: 'http://10.0.0.9:3128'}\n"
    config = load(tmp_path, FLEET + text)
    given = build.parameters(config, make_plan(config), ["p0", "d1"], STEPS)
    assert list(given) == ["p0", "d1"]
    one = given["d1"]
    assert (one["dir"], one["attempts"], one["free_mib"]) == ("/data/omniinfer", 7, 3)
    assert one["vllm"] == {
        "urls": ["https://github.com/vllm-project/vllm.git"],
        "ref": "v0.9.0",
        "commit": "a" * 40,
    }
    assert one["http_proxy"] == "http://10.0.0.9:3128" and one["optional"] == ["omni_placement"]


def test_the_folder_is_needed_for_all_but_the_check(tmp_path: Path) -> None:
    config = load_site(tmp_path, "runtime: process\n")
    with pytest.raises(InputError, match="no folder is set") as caught:
        build.parameters(config, None, [HERE], STEPS)
    assert "paths.code_dir" in str(caught.value) and "--dir DIR" in str(caught.value)
    assert build.parameters(config, None, [HERE], ["check"])[HERE]["dir"] == ""


def test_a_folder_that_is_given(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(tmp_path, FLEET)
    here = build.parameters(config, None, [HERE], STEPS, folder="code")
    assert here[HERE]["dir"] == str(tmp_path / "code")
    with pytest.raises(InputError, match="expected an absolute path"):
        build.parameters(config, make_plan(config), ["p0"], STEPS, folder="code")
    with pytest.raises(InputError, match="expected an absolute path"):
        build.parameters(config, None, [HERE], STEPS, folder="code", container="p0")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vllm_ref", "'--upload-pack=touch /tmp/x'"),
        ("omniinfer_ref", "'a b'"),
        ("vllm_urls", "['ext::sh -c date']"),
        ("omniinfer_urls", "['https://h/a', '-x']"),
    ],
)
def test_hostile_settings_are_refused_with_their_place(
    tmp_path: Path, key: str, value: str
) -> None:
    config = load_site(tmp_path, f"source:\n  {key}: {value}\n")
    with pytest.raises(InputError) as caught:
        build.parameters(config, None, [HERE], STEPS, folder="/code")
    assert f"site.yaml:2: source.{key}" in str(caught.value)


def test_the_commands_of_all_steps(tmp_path: Path) -> None:
    config = load_site(tmp_path, "source: {vllm_urls: ['https://me:s3cret@host/vllm.git']}\n")
    given = build.parameters(config, None, [HERE], STEPS, folder="/my code")[HERE]
    fetch = build.commands("fetch", given)
    assert "git -C '/my code/infer_engines/vllm' checkout --detach FETCH_HEAD" in fetch
    assert "s3cret" not in str(fetch) and len(fetch) == 10
    assert build.commands("build", given) == ["cd '/my code' && bash build/build.sh"]
    install = build.commands("install", given)
    assert install[1] == "python3 -m pip uninstall --yes omni_infer vllm omni_placement"
    assert install[2].startswith("python3 -m pip install '/my code/build/dist'/omni_infer-*.whl ")
    inside = {**given, "container": "p0", "engine": "podman"}
    assert build.commands("build", inside) == ["podman exec -w '/my code' p0 bash build/build.sh"]
    assert build.commands("check", inside)[0].startswith("podman exec p0 python3 -c ")


def package(name: str, version: object, *, needed: bool = True) -> dict[str, object]:
    row = {"name": name, "version": version, "needed": needed, "location": "/site"}
    return {**row, "importable": True if version else None, "whole": True if version else None}


def found(*packages: dict[str, object], wrong: tuple[str, ...] = ()) -> Done:
    return Done(result={"python": "python3", "packages": list(packages), "wrong": list(wrong)})


def test_packages_are_shown_side_by_side() -> None:
    done = {"p0": found(package("vllm", "0.9.0"), package("omni_placement", None, needed=False))}
    assert build.report("check", done).splitlines() == [
        "host  package         version          importable  location",
        "p0    vllm            0.9.0            yes         /site",
        "p0    omni_placement  none (optional)  -           /site",
    ]
    build.check_found(done)


def test_missing_packages_and_different_versions_are_errors() -> None:
    done = {
        "p0": found(package("vllm", "0.9.0")),
        "p1": found(package("vllm", "0.9.1")),
        "p2": found(package("vllm", None), wrong=("vllm",)),
    }
    with pytest.raises(ActionError) as caught:
        build.check_found(done)
    text = str(caught.value)
    assert "p2: vllm is missing" in text and "--only install" in text
    assert "vllm is not the same on all hosts: 0.9.0 on p0; 0.9.1 on p1; none on p2." in text


def test_the_other_steps_are_lines() -> None:
    one = {"action": "cloned", "ref": "v0.9.0", "commit": "a" * 40, "folder": "/code"}
    fetched = {"p0": Done(result={"sources": {"vllm": one}})}
    assert build.report("fetch", fetched) == "p0: vllm cloned: v0.9.0 (aaaaaaaaaaaa) in /code"
    wheels = [{"file": "vllm-0.9.0.whl"}]
    built = {"p0": Done(result={"action": "built", "wheels": wheels, "note": "dirty"})}
    assert build.report("build", built) == "p0: built: vllm-0.9.0.whl\np0: note: dirty"
    rows = [
        {"name": "vllm", "action": "installed", "version": "0.9.0", "before": "0.8.3"},
        {"name": "omni_infer", "action": "unchanged", "version": "0.4.1", "before": "0.4.1"},
        {"name": "omni_placement", "action": "none", "version": None, "before": None},
    ]
    installed = {"p0": Done(result={"packages": rows}), "p1": Done(error=ActionError("x"))}
    assert build.report("install", installed).splitlines() == [
        "p0: vllm installed: 0.9.0 (was 0.8.3)",
        "p0: omni_infer unchanged: 0.4.1",
        "p0: omni_placement none",
    ]
