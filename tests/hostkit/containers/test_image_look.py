"""What this host has: names of images and free space. With real engines: test_host_image.py."""

from __future__ import annotations

import pytest

from hostkit.base.errors import InputError
from hostkit.containers import image_look
from hostkit.containers.image_look import Found, Reference, parse


@pytest.mark.parametrize(
    ("tags", "image", "is_it"),
    [
        (("a/b:1",), "a/b:1", True),
        (("a/b:latest",), "a/b", True),
        (("localhost/b:1",), "b:1", True),
        (("docker.io/library/b:1",), "b:1", True),
        (("a/b:1",), "a/b:2", False),
        (("other.example/a/b:1",), "a/b:1", False),
        ((), "a/b:1", False),
    ],
)
def test_an_image_is_called_by_its_tags(tags, image, is_it) -> None:
    assert image_look.is_called(tags, image) is is_it


def test_the_digest_of_the_own_registry_comes_first() -> None:
    found = Found("1", "r/a:1", (), ("m/a@sha256:1", "r/a@sha256:2"), 0)
    assert found.digest(parse("r/a:1")) == "sha256:2"
    assert found.digest(parse("x/a:1")) == "sha256:1"
    assert Found("1", "r/a:1", (), (), 0).digest(parse("r/a:1")) == ""


def test_too_little_space_names_folder_and_numbers(tmp_path) -> None:
    image_look.check_space(tmp_path, 1, "the image", "")
    image_look.check_space(None, 10**12, "the image", "")
    with pytest.raises(InputError, match=r"MiB free on the disk of .*1000000000000 MiB") as caught:
        image_look.check_space(tmp_path, 10**12, "the image", " (image.free_mib)")
    assert str(tmp_path) in str(caught.value) and "image.free_mib" in str(caught.value)


DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("alpine", "docker.io", "alpine", "", ""),
        ("team/app:1", "docker.io", "team/app", "1", ""),
        ("localhost/app:1", "localhost", "app", "1", ""),
        ("127.0.0.1:5000/app", "127.0.0.1:5000", "app", "", ""),
        ("reg.example/a/b/c:v1.2", "reg.example", "a/b/c", "v1.2", ""),
        (f"reg.example:443/a@{DIGEST}", "reg.example:443", "a", "", DIGEST),
        (f"reg.example/a:1@{DIGEST}", "reg.example", "a", "1", DIGEST),
    ],
)
def test_a_name_has_parts(text, registry, repository, tag, digest) -> None:
    assert parse(text) == Reference(text, registry, repository, tag, digest)


@pytest.mark.parametrize(
    ("text", "mirror", "there"),
    [
        ("reg.example/a/b:1", "m.example", "m.example/a/b:1"),
        ("reg.example:5000/a/b", "m.example:5000/copies/", "m.example:5000/copies/a/b:latest"),
        ("alpine:3", "m.example", "m.example/library/alpine:3"),
        ("team/app:3", "m.example", "m.example/team/app:3"),
        (f"reg.example/a:1@{DIGEST}", "m.example", f"m.example/a@{DIGEST}"),
    ],
)
def test_a_mirror_replaces_the_registry(text, mirror, there) -> None:
    assert parse(text).at(mirror) == there


def test_the_name_is_without_tag_and_digest() -> None:
    assert parse(f"127.0.0.1:5000/a/b:1@{DIGEST}").name == "127.0.0.1:5000/a/b"
