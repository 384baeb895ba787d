"""Which steps a deployment does."""

from __future__ import annotations

import pytest

from hostkit.base.errors import InputError
from omnikit.deploy.steps import STEPS, choose, named


def test_all_without_a_choice() -> None:
    assert choose() == frozenset(STEPS)


def test_tags_choose_and_skip_tags_leave_out() -> None:
    assert choose("ranktable, run-server") == {"ranktable", "run_server"}
    assert choose(skip="run_docker") == frozenset(STEPS) - {"run_docker"}
    assert choose("run_server,run_proxy", "run_proxy") == {"run_server"}


def test_named_are_only_those_that_were_asked_for() -> None:
    assert named("") == frozenset()
    assert named("sync-code") == {"sync_code"}


def test_a_name_that_is_no_step_is_refused_with_the_names() -> None:
    with pytest.raises(InputError, match="'run_servers'") as caught:
        choose("run_servers")
    assert "run_server" in str(caught.value.todo) and caught.value.where == "--tags"


def test_the_other_verbs_are_tasks_of_their_own() -> None:
    with pytest.raises(InputError, match="no part") as caught:
        choose("stop_server")
    assert "invoke stop" in str(caught.value.todo)


def test_leaving_out_what_is_no_part_anyway_is_no_mistake() -> None:
    assert choose(skip="fetch_log,sync_code") == frozenset(STEPS) - {"sync_code"}
