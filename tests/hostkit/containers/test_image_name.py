"""Names of images: their parts, and their names at a mirror."""

from __future__ import annotations

import pytest

from hostkit.containers.image_name import Reference, parse

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
