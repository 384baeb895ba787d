"""Which steps a deployment does."""

from __future__ import annotations

import pytest
from omnikit.deploy_steps import STEPS, choose
from omnikit.errors import InputError


def test_all_without_a_choice() -> None:
    assert choose() == frozenset(STEPS)


def test_tags_choose_and_skip_tags_leave_out() -> None:
    assert choose("ranktable, run-server") == {"ranktable", "run_server"}
    assert choose(skip="run_docker") == frozenset(STEPS) - {"run_docker"}
    assert choose("run_server,run_proxy", "run_proxy") == {"run_server"}


def test_steps_that_are_not_done_may_be_left_out_but_not_asked_for() -> None:
    assert choose(skip="sync_code,pip_install") == frozenset(STEPS)
    with pytest.raises(InputError, match="sync_code is not done by a deployment yet"):
        choose("sync_code")
    with pytest.raises(InputError) as caught:
        choose("pip_install")
    assert "invoke install-wheels" in str(caught.value.todo)


def test_a_name_that_is_no_step_is_refused_with_the_names() -> None:
    with pytest.raises(InputError, match="'run_servers'") as caught:
        choose("run_servers")
    assert "run_server" in str(caught.value.todo) and caught.value.where == "--tags"


def test_the_other_verbs_are_tasks_of_their_own() -> None:
    with pytest.raises(InputError, match="no part") as caught:
        choose(skip="stop_server")
    assert "invoke stop" in str(caught.value.todo)
