"""The image on many hosts: which image, which hosts, what each is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from omnikit import image_pull, jobs
from omnikit.errors import ActionError, InputError
from settings_file import FLEET, load, plan


def test_the_image_is_the_given_one_or_the_configurations(tmp_path) -> None:
    config = load(tmp_path, FLEET, ["container.image=reg.example/a:1"])
    assert image_pull.wanted(config, None) == "reg.example/a:1"
    assert image_pull.wanted(config, "b:2") == "b:2"
    with pytest.raises(InputError, match="not an image's name"):
        image_pull.wanted(config, "-v /:/host")
    config = load(tmp_path, FLEET, ["container.image=null"])
    with pytest.raises(InputError, match=r"container\.image: no image is set") as caught:
        image_pull.wanted(config, None)
    assert "pull_image.sh" in str(caught.value)


def test_each_host_is_told_the_settings_and_the_secret(tmp_path) -> None:
    secret = tmp_path / "login"
    secret.write_text("reader:s3cret\n")
    text = FLEET + (
        "image: {mirrors: [m.example/x], attempts: 7, delay_s: 3, free_mib: 11,"
        f" credentials: {{file: {secret}}}}}\ncontainer: {{engine: podman}}\n"
    )
    config = load(tmp_path, text)
    assert image_pull.parameters(config, "a:1") == {
        "image": "a:1",
        "engine": "podman",
        "mirrors": ["m.example/x"],
        "credentials": "reader:s3cret",
        "attempts": 7,
        "delay_s": 3,
        "free_mib": 11,
    }
    shown = "\n".join(image_pull.commands(config, "a:1", Path("/tmp/a.tar")))
    assert "podman pull m.example/x/library/a:1" in shown and "--username reader" in shown
    assert shown.endswith("podman save --output /tmp/a.tar a:1") and "s3cret" not in shown


def test_credentials_without_a_password_are_refused_before_anything_runs(tmp_path) -> None:
    secret = tmp_path / "login"
    secret.write_text("s3cret\n")
    config = load(tmp_path, FLEET + f"image: {{credentials: {{file: {secret}}}}}\n")
    with pytest.raises(InputError, match="not USER:PASSWORD") as caught:
        image_pull.parameters(config, "a:1")
    assert "s3cret" not in str(caught.value)


def test_hosts_are_all_or_those_that_are_named(tmp_path) -> None:
    found = plan(tmp_path, FLEET)
    assert image_pull.chosen(found, []) == ["p0", "p1", "d0", "d1"]
    assert image_pull.chosen(found, ["d1", "p0"]) == ["p0", "d1"]
    with pytest.raises(InputError, match=r"no host 'x9', found: p0, p1, d0, d1"):
        image_pull.chosen(found, ["x9"])


def test_a_digest_cannot_be_exported(tmp_path) -> None:
    config = load(tmp_path, FLEET)
    with pytest.raises(InputError, match="an archive keeps no digest"):
        image_pull.export(config, f"a@sha256:{'0' * 64}", tmp_path / "a.tar")


def test_a_line_says_what_happened(capsys) -> None:
    result = {"action": "pulled", "image": "a:1", "id": "1" * 64, "from": "m/a:1"}
    image_pull.tell("p0", jobs.Done(result=result))
    image_pull.tell("p1", jobs.Done(error=ActionError("it broke\nat length")))
    image_pull.tell("p2", jobs.Done(result={"action": "missing", "image": "a:1"}))
    result = {"action": "unchanged", "image": "a:1", "id": "1" * 64, "note": "nobody answered"}
    image_pull.tell("p3", jobs.Done(result=result))
    assert capsys.readouterr().err.splitlines() == [
        f"host p0: pulled a:1 ({'1' * 12}) from m/a:1",
        "host p1: failed: it broke",
        "host p2: a:1 is not there",
        f"host p3: unchanged a:1 ({'1' * 12}); nobody answered",
    ]
