"""Each wrong deployment of vllm-ascend is noticed, by name: by the plan, or its twin and doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest
import twin_case
import twin_here
from wrong_ascend import BY_PLAN, BY_TWIN
from wrong_deployments import Wrong, refused

from omnikit.fleet import causes


@pytest.mark.parametrize("wrong", BY_PLAN, ids=lambda wrong: wrong.name)
def test_the_plan_refuses_it_and_says_where(wrong: Wrong, tmp_path: Path) -> None:
    refused(wrong, tmp_path)


def test_doctor_knows_what_the_table_expects() -> None:
    for _, name in BY_TWIN.values():
        assert causes.entry(name).remedy


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[twin_here.Here]:
    yield twin_here.Here(tmp_path_factory.mktemp("here"))


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_TWIN)
def test_the_twin_dies_of_it_and_doctor_names_it(
    name: str, here: twin_here.Here, tmp_path: Path
) -> None:
    fault, expected = BY_TWIN[name]
    found = twin_case.named(here, fault, tmp_path)
    assert found[0] == expected, (found, (tmp_path / f"{fault.watched}.log").read_text()[-2000:])
