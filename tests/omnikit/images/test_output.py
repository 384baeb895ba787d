"""What the engines say while they build: lines as Docker's two builders and Podman print them."""

from __future__ import annotations

import pytest

from omnikit.images.build import BuildOutput, failure

LEGACY = """Sending build context to Docker daemon  682.9MB
Step 1/3 : ARG BASE=debian:bookworm-slim
Step 2/3 : FROM ${BASE}
 ---> fc983c982c68
Step 3/3 : RUN apt-get update     && false
 ---> Running in 0172aa3c69ec
\x1b[91mengine: compiling modules (45 s)
\x1b[0mThe command '/bin/sh -c apt-get update' returned a non-zero code: 1"""
BUILDKIT = """#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 1.34kB done
#5 [system 2/3] RUN apt-get update
#5 0.334 Get:1 http://deb.debian.org/debian bookworm InRelease
#9 [stage-2 2/2] COPY --from=build /opt/engine /opt/engine
#9 ERROR: process "/bin/sh -c false" did not complete successfully: exit code: 1"""
PODMAN = """[1/2] STEP 1/3: FROM localhost/deb:1 AS build
[1/2] STEP 3/3: RUN echo hi > /hi
--> 044a205d226
[2/2] STEP 2/4: COPY --from=build /hi /hi
Error: building at STEP "RUN false": exit status 1"""


def heard(text: str) -> tuple[BuildOutput, list[str]]:
    """An output that heard the lines, and what it said."""
    said: list[str] = []
    output = BuildOutput(said.append, 3600.0, "app")
    output.step("building")
    for line in text.splitlines():
        output.heard(line)
    return output, [line.rsplit(" (", 1)[0] for line in said[1:]]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        (
            LEGACY,
            [
                "app: step 1 of 3: ARG BASE=debian:bookworm-slim",
                "app: step 2 of 3: FROM ${BASE}",
                "app: step 3 of 3: RUN apt-get update && false",
            ],
        ),
        (
            BUILDKIT,
            [
                "app: step 2 of 3: RUN apt-get update",
                "app: step 2 of 2: COPY --from=build /opt/engine /opt/engine",
            ],
        ),
        (
            PODMAN,
            [
                "app: step 1 of 3: FROM localhost/deb:1 AS build",
                "app: step 3 of 3: RUN echo hi > /hi",
                "app: step 2 of 4: COPY --from=build /hi /hi",
            ],
        ),
    ],
    ids=["legacy", "buildkit", "podman"],
)
def test_every_step_is_said_as_it_begins(text: str, steps: list[str]) -> None:
    assert heard(text)[1] == steps


def test_a_failure_names_the_step_and_repeats_the_last_words_without_colour() -> None:
    output, _ = heard(LEGACY)
    error = failure(output, "docker", "/var/lib/docker")
    assert error.what.startswith("the build ended at step 3 of 3: RUN apt-get update && false.")
    assert "engine: compiling modules (45 s)" in error.what
    assert "\x1b" not in error.what
    assert "run this again" in str(error)


def test_a_full_disk_is_named_with_the_place_and_a_command() -> None:
    output, _ = heard(f"{LEGACY}\nwrite /x: no space left on device")
    error = failure(output, "docker", "/var/lib/docker")
    assert error.what.startswith("the disk is full; the build ended at step 3 of 3")
    assert (error.where, "docker image prune" in str(error.todo)) == ("/var/lib/docker", True)


def test_packages_that_cannot_be_fetched_are_named_with_the_way_to_another_mirror() -> None:
    output, _ = heard(f"{LEGACY}\nErr:1 http://d/debian x\n  Temporary failure resolving 'd'")
    error = failure(output, "podman", None)
    assert "Debian's packages cannot be fetched" in error.what
    assert "APT_MIRROR" in str(error.todo)


def test_a_failure_before_the_first_step_says_so() -> None:
    output, _ = heard("unable to prepare context: path not found")
    assert "ended at before" not in failure(output, "docker", None).what
    assert "before the first step" in failure(output, "docker", None).what


def test_a_long_quiet_step_is_said_again_rather_than_an_old_line() -> None:
    said: list[str] = []
    output = BuildOutput(said.append, 0.0, "app")
    output.heard("Step 1/2 : COPY . .")
    output.heard("some output")
    output._show()
    assert [line.rsplit(" (", 1)[0] for line in said][-1] == "app: step 1 of 2: COPY . ."
