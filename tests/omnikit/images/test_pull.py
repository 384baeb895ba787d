"""The image on many hosts: which image, which hosts, what each is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from settings_file import FLEET, load, plan

from hostkit.base.errors import ActionError, InputError
from omnikit.fleet import jobs
from omnikit.images import pull


def test_the_image_is_the_given_one_or_the_configurations(tmp_path) -> None:
    config = load(tmp_path, FLEET, ["container.image=reg.example/a:1"])
    assert pull.wanted(config, None) == "reg.example/a:1"
    assert pull.wanted(config, "b:2") == "b:2"
    with pytest.raises(InputError, match="not an image's name"):
        pull.wanted(config, "-v /:/host")
    config = load(tmp_path, FLEET, ["container.image=null"])
    with pytest.raises(InputError, match=r"container\.image: no image is set") as caught:
        pull.wanted(config, None)
    assert "pull_image.py" in str(caught.value)


def test_each_host_is_told_the_settings_and_the_secret(tmp_path) -> None:
    secret = tmp_path / "login"
    secret.write_text("reader:s3cret\n")
    text = FLEET + (
        "image: {mirrors: [m.example/x], attempts: 7, delay_s: 3, free_mib: 11,"
        f" credentials: {{file: {secret}}}}}\ncontainer: {{engine: podman}}\n"
    )
    config = load(tmp_path, text)
    assert pull.parameters(config, "a:1") == {
        "image": "a:1",
        "engine": "podman",
        "platform": None,
        "mirrors": ["m.example/x"],
        "credentials": "reader:s3cret",
        "attempts": 7,
        "delay_s": 3,
        "free_mib": 11,
    }
    shown = "\n".join(pull.commands(config, "a:1", Path("/tmp/a.tar")))
    assert (
        'podman pull --platform "linux/$(uname -m)" m.example/x/library/a:1' in shown
        and "--username reader" in shown
    )
    assert shown.endswith("podman save --output /tmp/a.tar a:1") and "s3cret" not in shown


def test_credentials_without_a_password_are_refused_before_anything_runs(tmp_path) -> None:
    secret = tmp_path / "login"
    secret.write_text("s3cret\n")
    config = load(tmp_path, FLEET + f"image: {{credentials: {{file: {secret}}}}}\n")
    with pytest.raises(InputError, match="not USER:PASSWORD") as caught:
        pull.parameters(config, "a:1")
    assert "s3cret" not in str(caught.value)


def test_hosts_are_all_or_those_that_are_named(tmp_path) -> None:
    found = plan(tmp_path, FLEET)
    assert pull.chosen(found, []) == ["p0", "p1", "d0", "d1"]
    assert pull.chosen(found, ["d1", "p0"]) == ["p0", "d1"]
    with pytest.raises(InputError, match=r"no host 'x9', found: p0, p1, d0, d1"):
        pull.chosen(found, ["x9"])


def test_a_digest_cannot_be_exported(tmp_path) -> None:
    config = load(tmp_path, FLEET)
    with pytest.raises(InputError, match="an archive keeps no digest"):
        pull.export(config, f"a@sha256:{'0' * 64}", tmp_path / "a.tar")


def test_a_line_says_what_happened(capsys) -> None:
    result = {"action": "pulled", "image": "a:1", "id": "1" * 64, "from": "m/a:1"}
    pull.tell("p0", jobs.Done(result=result))
    pull.tell("p1", jobs.Done(error=ActionError("it broke\nat length")))
    pull.tell("p2", jobs.Done(result={"action": "missing", "image": "a:1"}))
    result = {"action": "unchanged", "image": "a:1", "id": "1" * 64, "note": "nobody answered"}
    pull.tell("p3", jobs.Done(result=result))
    assert capsys.readouterr().err.splitlines() == [
        f"host p0: pulled a:1 ({'1' * 12}) from m/a:1",
        "host p1: failed: it broke",
        "host p2: a:1 is not there",
        f"host p3: unchanged a:1 ({'1' * 12}); nobody answered",
    ]


def test_commands_name_the_platform_or_ask_for_it(tmp_path) -> None:
    def pulls(*sets: str, **more) -> list[str]:
        found = pull.commands(load(tmp_path, FLEET, sets), "r.example/a:1", **more)
        return [line for line in found if " pull " in line]

    assert pulls() == ['docker pull --platform "linux/$(uname -m)" r.example/a:1']
    fixed = ["docker pull --platform linux/arm64 r.example/a:1"]
    assert pulls("image.platform=linux/aarch64") == fixed
    # An archive is written here, but for the hosts: the line asks the first of them.
    (line,) = pulls(archive=Path("/tmp/a.tar"), plan=plan(tmp_path, FLEET))
    assert line.startswith('docker pull --platform "linux/$(ssh ')
    assert line.endswith('192.0.2.1 uname -m)" r.example/a:1')
    with pytest.raises(InputError, match="linux/arm64 or linux/amd64"):
        pulls("image.platform=linux/arm46")
