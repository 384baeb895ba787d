"""What the servers of a node share, and what each has for itself."""

from __future__ import annotations

from omnikit.config.schema import Server
from omnikit.plan.arguments import NodeCommands

COMMANDS = NodeCommands(
    Server(
        command=["serve", "${plan.model_path}"],
        tensor_parallel=None,
        args={
            "fixed": 1,
            "ip": "${plan.host_ip}",
            "port": "${plan.api_port}",
            "off": None,
            "json": {"rank": "${plan.dp_rank}"},
        },
        env={"A": True, "B": "${plan.host_ip}", "RANK": "${plan.dp_rank}", "OFF": None},
        prepend={"PYTHONPATH": "/code", "OFF": None},
        workdir="/work/${plan.host_ip}",
        files={"a.json": {"ip": "${plan.host_ip}"}},
    ),
    {},
)
FACTS = {"model_path": "/m", "host_ip": "10.0.0.1"}
SERVERS = [{"api_port": 9000 + k, "dp_rank": k} for k in range(2)]


def test_one_server_shares_everything_with_itself() -> None:
    command, env = COMMANDS.shared(FACTS, SERVERS[1:])
    assert command == (
        *("serve", "/m", "--fixed", "1", "--ip", "10.0.0.1", "--port", "9001"),
        *("--json", '{"rank": 1}'),
    )
    assert env == {"A": "1", "B": "10.0.0.1", "RANK": "1"}
    (own,) = COMMANDS.own(FACTS, SERVERS[1:])
    assert (own.args, own.env) == ((), {})


def test_a_folder_to_start_in_and_what_goes_before_a_variable_are_the_nodes() -> None:
    assert COMMANDS.prepend(FACTS) == {"PYTHONPATH": "/code"}
    assert COMMANDS.workdir(FACTS) == "/work/10.0.0.1"


def test_several_servers_share_what_is_equal_and_have_the_rest_each() -> None:
    command, env = COMMANDS.shared(FACTS, SERVERS)
    assert command == ("serve", "/m", "--fixed", "1", "--ip", "10.0.0.1")
    assert env == {"A": "1", "B": "10.0.0.1"}
    first, second = COMMANDS.own(FACTS, SERVERS)
    assert first.args == ("--port", "9000", "--json", '{"rank": 0}')
    assert second.args == ("--port", "9001", "--json", '{"rank": 1}')
    assert (first.env, second.env) == ({"RANK": "0"}, {"RANK": "1"})


def test_files_are_filled_in_for_the_node() -> None:
    assert COMMANDS.files(FACTS) == {"a.json": {"ip": "10.0.0.1"}}
