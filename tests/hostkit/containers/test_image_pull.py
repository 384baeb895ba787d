"""The commands of a pull, in order. Real pulls: test_host_image.py."""

from __future__ import annotations

from image_cases import parameters

from hostkit.containers import image_pull
from hostkit.containers.engines import Engine

ENGINE = Engine("docker", "docker")
DIGEST = "sha256:" + "a" * 64


def lines(image: str, **more) -> list[str]:
    given = parameters(image, **{"platform": "linux/arm64", **more})
    return [" ".join(argv) for argv in image_pull.plan_argvs(ENGINE, given)]


def test_mirrors_are_asked_before_the_registry() -> None:
    found = lines("r.example/a:1", mirrors=["m.example", "n.example/x"], credentials="u:")
    assert found == [
        "docker image inspect -- r.example/a:1",
        "docker pull --platform linux/arm64 m.example/a:1",
        "docker tag m.example/a:1 r.example/a:1",
        "docker rmi m.example/a:1",
        "docker pull --platform linux/arm64 n.example/x/a:1",
        "docker tag n.example/x/a:1 r.example/a:1",
        "docker rmi n.example/x/a:1",
        "docker login --username u --password-stdin r.example",
        "docker pull --platform linux/arm64 r.example/a:1",
    ]


def test_a_digest_keeps_the_mirrors_name_because_no_other_can_be_given() -> None:
    rename = image_pull.rename_argvs
    assert rename(ENGINE, f"m/a@{DIGEST}", f"r.example/a@{DIGEST}") == []
    assert rename(ENGINE, f"m/a@{DIGEST}", f"r.example/a:1@{DIGEST}") == [
        ["docker", "tag", f"m/a@{DIGEST}", "r.example/a:1"]
    ]
