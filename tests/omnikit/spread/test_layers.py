"""Images on three real SSH hosts with an engine each: only layers that a host lacks are moved."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Iterator

import pytest
from docker_host import DockerHost, make_small_image
from fleet_docker import docker_on
from image_cases import image_id, use
from ssh_fleet import ssh_fleet
from weights_fleet import ROOT, WeightsFleet

from hostkit.base.errors import InputError
from hostkit.containers import images
from omnikit.config import config
from omnikit.config.config import Config
from omnikit.fleet import jobs
from omnikit.images import pull
from omnikit.plan.types import Plan
from omnikit.spread import layers
from omnikit.topology.topology import make_plan

NAMES = ["h0", "h1", "h2"]
REPOSITORY = "registry.invalid/team/app"
SIZE = 28 << 20  # of the first image
pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("unshare", "nsenter", "ip", "sshd", "dockerd", "docker", root=True),
]


class Site(WeightsFleet):
    """A fleet with an engine on every host."""

    engines: dict[str, DockerHost]

    def load(self, *assignments: str) -> tuple[Config, Plan]:
        """Its configuration and plan."""
        settings = config.load(str(self.file), assignments=assignments, environ={})
        return settings, make_plan(settings)

    def add_layer(self, tag: int, size: int, base: str = "") -> str:
        """An image on h0: one more layer, above the one with the tag before."""
        engine, block = self.engines["h0"], self.file.with_name("block")
        block.write_bytes(os.urandom(size))
        made = engine.docker("create", base or f"{REPOSITORY}:{tag - 1}", "/bin/bash")
        made_id = made.stdout.strip()
        engine.docker("cp", str(block), f"{made_id}:/block{tag}")
        engine.docker("commit", made_id, f"{REPOSITORY}:{tag}")
        engine.docker("rm", made_id)
        block.unlink()
        return f"{REPOSITORY}:{tag}"

    def ids(self, image: str) -> list[str]:
        """What each host has under a name."""
        return [image_id(self.engines[name], image) for name in NAMES]

    def all_sent(self) -> int:
        """Bytes that went out of all hosts' network cards."""
        return sum(self.sent(name) for name in NAMES)

    def left(self) -> list[str]:
        """What a transfer has left on hosts that it should not."""
        kept = [host.path("/data/omnikit/layers") for host in self.fleet.hosts.values()]
        found = [str(place) for place in kept if place.exists()]
        return found + [name for name in NAMES if self.listening(name) or self.agents(name)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("layers")
    with ssh_fleet(folder / "fleet", NAMES) as fleet, ExitStack() as stack:
        made = Site(folder, fleet, 22190)
        with made.file.open("a") as file:
            file.write(
                f"container: {{image: '{REPOSITORY}:1', engine: docker}}\n"
                "image: {free_mib: 1, attempts: 1, delay_s: 0.1}\n"
            )
        made.engines = {
            name: stack.enter_context(docker_on(host)) for name, host in fleet.hosts.items()
        }
        base = make_small_image(made.engines["h0"])
        made.add_layer(1, 24 << 20, base)
        yield made


def test_who_cannot_pull_gets_the_image_from_who_has_it(site: Site) -> None:
    image = f"{REPOSITORY}:1"
    before = site.sent("h0")
    argv = [sys.executable, "scripts/pull_image.py", "-e", str(site.file)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "host h1: failed: registry.invalid/team/app:1 could not be pulled in 1" in done.stderr
    assert "h1, h2: cannot pull it; h0 gives the layers that they lack" in done.stderr
    assert "has it, verified" in done.stderr
    assert "h1: loaded" in done.stdout and "2 of 2 layers came" in done.stdout
    assert len(set(site.ids(image))) == 1 and site.ids(image)[0]
    assert site.sent("h0") - before < 1.5 * SIZE, "h1 and h2 give to each other"
    for name in NAMES:
        ran = site.engines[name].docker("create", image, "/bin/bash").stdout.strip()
        site.engines[name].docker("rm", ran)
    assert site.left() == []


def test_a_host_that_is_named_gives_it_and_no_registry_is_asked(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = f"{REPOSITORY}:named-giver"
    site.engines["h0"].docker("tag", f"{REPOSITORY}:1", image)
    monkeypatch.setattr(pull, "pull", lambda *_, **__: pytest.fail("a registry was asked"))
    done = jobs.results(layers.bring(*site.load(), NAMES, image, origin="h0"))
    assert [done[name]["action"] for name in NAMES] == ["unchanged", "loaded", "loaded"]
    assert len(set(site.ids(image))) == 1 and site.left() == []


def test_where_nobody_can_give_it_the_registry_is_asked_as_often_as_set(
    site: Site, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It may have been away for a moment only."""
    image = "127.0.0.1:9/team/app:1"  # it refuses at once
    site.engines["h0"].docker("tag", f"{REPOSITORY}:1", image)
    settings, plan = site.load("image.attempts=2")
    # The transfer has no place to go: an error of the giver itself.
    full = config.load(str(site.file), assignments=["distribution.port=22"], environ={})
    real = layers.pass_on
    monkeypatch.setattr(layers, "pass_on", lambda _, *more: real(full, *more))
    done = layers.bring(settings, plan, NAMES, image)
    said = capfd.readouterr().err
    assert "h1, h2: cannot pull it; h0 gives the layers that they lack" in said
    assert "note: h0 cannot give it: port 22" in said
    assert done["h0"].error is None and "in 2 attempts" in str(done["h1"].error)
    assert site.ids(image)[1:] == ["", ""]


def test_of_a_new_tag_only_the_changed_layer_is_moved(site: Site) -> None:
    image = site.add_layer(2, 200_000)
    before = site.all_sent()
    done = jobs.results(layers.pass_on(*site.load(), NAMES, image, "h0"))
    assert site.all_sent() - before < 0.05 * SIZE
    assert [done[name]["action"] for name in NAMES] == ["unchanged", "loaded", "loaded"]
    assert done["h1"]["note"] == "1 of 3 layers came, the others were here"
    assert len(set(site.ids(image))) == 1 and site.ids(image)[0]
    # A name more for the same layers: nothing moves but the image's configuration.
    named = f"{REPOSITORY}:named"
    site.engines["h0"].docker("tag", image, named)
    again = jobs.results(layers.pass_on(*site.load(), ["h1"], named, "h0"))
    assert again["h1"]["note"].startswith("0 of 3 layers came")
    assert site.left() == []


def test_a_deployment_gives_an_image_that_some_hosts_have(site: Site) -> None:
    image = site.add_layer(3, 100_000)
    site.engines["h2"].docker("rmi", f"{REPOSITORY}:2")  # it lacks one layer more than h1
    done = jobs.results(layers.bring(*site.load(), NAMES, image, if_missing=True))
    assert [done[name]["action"] for name in NAMES] == ["unchanged", "loaded", "loaded"]
    assert [done[name]["note"][:6] for name in NAMES[1:]] == ["1 of 4", "2 of 4"]
    again = jobs.results(layers.bring(*site.load(), NAMES, image, if_missing=True))
    assert [done["action"] for done in again.values()] == ["unchanged"] * 3


def test_an_archive_of_this_machine_moves_by_its_layers(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = site.add_layer(4, 100_000)
    archive = tmp_path / "app.tar"
    with monkeypatch.context() as patch:
        use(patch, site.engines["h0"])
        images.save({"image": image, "engine": "docker", "archive": str(archive)})
        before = site.all_sent()
        settings, plan = site.load()
        given = pull.loading(settings, archive, image)
        done = jobs.results(layers.load(settings, plan, NAMES, given))
    assert [done[name]["action"] for name in NAMES] == ["unchanged", "loaded", "loaded"]
    assert done["h2"]["note"].startswith("1 of 5 layers came")
    assert site.all_sent() - before < 1 << 20 and len(set(site.ids(image))) == 1
    assert site.left() == []


def test_what_cannot_be_is_said_and_nothing_is_moved(site: Site) -> None:
    image = site.add_layer(5, 1000)
    full = layers.pass_on(*site.load("image.free_mib=900000000"), NAMES, image, "h0")
    assert "too little space for the image" in str(full["h1"].error)
    with pytest.raises(InputError, match=r"ss -ltnp \| grep 22;"):
        layers.pass_on(*site.load("distribution.port=22"), NAMES, image, "h0")
    with pytest.raises(InputError, match="h1 has no image"):
        layers.pass_on(*site.load(), NAMES, image, "h1")
    with pytest.raises(InputError, match="there is no host 'h9', found: h0, h1, h2, or here"):
        layers.bring(*site.load(), NAMES, image, origin="h9")
    assert site.ids(image)[1:] == ["", ""] and site.left() == []
