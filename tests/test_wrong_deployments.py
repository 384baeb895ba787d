"""Each wrong deployment of the table is noticed, by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Iterator

import pytest
import twin_case
from wrong_deployments import BY_PLAN, BY_TWIN, Wrong, refused


@pytest.mark.parametrize("wrong", BY_PLAN, ids=lambda wrong: wrong.name)
def test_the_plan_refuses_it_and_says_where(wrong: Wrong, tmp_path: Path) -> None:
    refused(wrong, tmp_path)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[twin_case.Site]:
    with twin_case.twin_hosts(tmp_path_factory.mktemp("twin")) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("ray", [False, True])
def test_without_a_fault_the_twin_serves(ray: bool, site: twin_case.Site, tmp_path: Path) -> None:
    right = twin_case.Fault(starts=twin_case.HOSTS, ray=ray, asks=True)
    with twin_case.running(site, right, tmp_path) as started:
        answer = twin_case.ask(site.plans[ray], started, tmp_path)
    assert answer.status == 200 and json.loads(answer.text)["choices"][0]["text"].strip()


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_TWIN)
def test_the_twin_dies_of_it_and_doctor_names_it(
    name: str, site: twin_case.Site, tmp_path: Path
) -> None:
    fault, expected = BY_TWIN[name]
    found = twin_case.named(site, fault, tmp_path)
    assert found[0] == expected, (found, (tmp_path / f"{fault.watched}.log").read_text()[-2000:])
