"""What this host has: names of images and free space. With real engines: test_host_image.py."""

from __future__ import annotations

import pytest

from hostkit.base.errors import InputError
from hostkit.containers import image_look
from hostkit.containers.image_look import Found
from hostkit.containers.image_name import parse


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
