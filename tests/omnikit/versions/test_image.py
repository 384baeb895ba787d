"""An image whose name says that it is older than the release: named, refused where it must."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostkit.base.errors import InputError
from omnikit.config import config
from omnikit.versions import image


def loaded(*sets: str, environment: str = "2p1d") -> config.Config:
    return config.load(environment, assignments=list(sets), environ={})


def test_the_shipped_environments_can_be_planned_and_say_what_to_do() -> None:
    for name in ("1p1d", "2p1d", "18p1d", "qwen2.5"):
        [note] = image.notes(loaded(environment=name))
        assert "configs/engines/ascend.yaml:" in note and "configs/versions/v0.4.1.yaml:" in note
        assert "its tag says 2025-06-27, omni-infer v0.4.1 is of 2025-09" in note
        assert (
            "so a deploy refuses it. Later than the image: pd_score_balance (2025-07-17)." in note
        )
        assert "paths.local_code_dir: DIR" in note and "image.older_than_release=accept" in note


def test_a_deployment_is_refused_with_the_setting_that_refuses_it() -> None:
    with pytest.raises(InputError, match="no source of that release is laid over") as caught:
        image.refuse(loaded())
    said = str(caught.value)
    assert said.startswith("configs/engines/ascend.yaml:")
    assert "(now refuse, configs/defaults.yaml:" in said


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["paths.local_code_dir=/src/omniinfer"], "(--set paths.local_code_dir) is laid over it"),
        (["image.older_than_release=accept"], "accepts that (--set image.older_than_release)"),
    ],
)
def test_the_guides_way_and_an_image_that_is_accepted(sets: list[str], said: str) -> None:
    found = loaded(*sets)
    image.refuse(found)
    [note] = image.notes(found)
    assert said in note


def test_the_source_does_not_bring_the_proxys_program() -> None:
    over = ["paths.local_code_dir=/src/omniinfer"]
    [note] = image.notes(loaded(*over))
    assert (
        "the proxy's nginx is the image's, which is older than pd_score_balance (2025-07-17)"
        in note
    )
    others = ["proxy.prefill_balance=least_conn", "proxy.decode_balance=least_conn"]
    [note] = image.notes(loaded(*over, *others))
    assert "nginx" not in note


@pytest.mark.parametrize(
    "sets",
    [
        ["container.image=r.io/omniinfer:20250920"],
        ["container.image=r.io/omniinfer:latest"],
        ["container.image=null"],
        ["release.date=null", "release.packages.vllm=null", "release.packages.omni_infer=null"],
        ["runtime=process"],
    ],
)
def test_where_nothing_says_that_it_is_older_nothing_is_said(sets: list[str]) -> None:
    found = loaded(*sets)
    image.refuse(found)
    assert list(image.notes(found)) == []


def test_an_engine_that_is_not_omni_infer_has_no_release() -> None:
    assert image.release(loaded("runtime=docker", environment="local")) is None


@pytest.mark.parametrize(
    ("version", "name", "date", "omni"),
    [
        ("v0.4.1", "v0.4.1", "2025-09", "0.4.1"),
        ("v0.4.2", "v0.4.2", "2025-09", "0.4.2"),
        ("v0.5.0", "v0.5.0", "2025-09", "0.5.0"),
        ('"2025-08"', "2025-08", "2025-08", None),
    ],
)
def test_each_release_has_its_own(version: str, name: str, date: str, omni: str) -> None:
    found = image.release(loaded(f"profile.omni_version={version}"))
    assert found is not None and (found["name"], found["date"]) == (name, date)
    assert found["packages"].get("omni_infer") == omni
    assert found["packages"]["vllm"] == "0.9.0"


def test_users_files_name_their_source_and_are_not_refused() -> None:
    file = Path(__file__).resolve().parents[2] / "foreign" / "omni_infer_deployment.yml"
    found = config.load(None, [str(file)], environ={})
    image.refuse(found)
    [note] = image.notes(found)
    assert "is laid over it" in note
