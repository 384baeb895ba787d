"""Instances on their hosts: devices, sizes, offsets and settings."""

from __future__ import annotations

from pathlib import Path

from settings_file import FLEET, load

from omnikit.topology.members import groups


def members(folder: Path, text: str, role: str):
    return [m for g in groups(load(folder, text)) if g.role == role for m in g.members]


def test_devices_come_from_the_host_else_the_instance_else_the_setting(tmp_path: Path) -> None:
    text = FLEET.replace("192.0.2.3}", '192.0.2.3, devices: "8,9"}')
    text = text.replace("{hosts: [d0, d1]}", "{hosts: [d0, d1], devices: 0-3}")
    text = text.replace("{hosts: [p1]}", "{hosts: [p1], devices: 4-5}")
    found = {m.name: m.devices for g in groups(load(tmp_path, text)) for m in g.members}
    assert found == {
        "p0": tuple(range(16)),
        "p1": (4, 5),
        "d0": (8, 9),
        "d1": (0, 1, 2, 3),
    }


def test_offsets_count_devices_and_servers_of_the_hosts_before(tmp_path: Path) -> None:
    text = FLEET.replace("192.0.2.3}", "192.0.2.3, devices: 0-3}")
    text += "roles: {decode: {server: {tensor_parallel: 2}}}\n"
    d0, d1 = members(tmp_path, text, "decode")
    assert (d0.offset, d0.server_offset, d0.server_count) == (0, 0, 2)
    assert (d1.offset, d1.server_offset, d1.server_count) == (4, 2, 8)


def test_an_instance_over_several_hosts_has_one_server_on_the_first(tmp_path: Path) -> None:
    text = FLEET.replace("[{hosts: [p0]}, {hosts: [p1]}]", "[{hosts: [p0, p1]}]")
    first, second = members(tmp_path, text, "prefill")
    assert (first.server_count, second.server_count) == (1, 0)
    assert first.tensor_parallel == second.tensor_parallel == 32


def test_settings_are_shared_until_an_override_sets_a_member_apart(tmp_path: Path) -> None:
    text = FLEET.replace("192.0.2.4}", "192.0.2.4, server: {env: {A: x}}}")
    p0, p1 = members(tmp_path, text, "prefill")
    d0, d1 = members(tmp_path, text, "decode")
    assert p0.server is p1.server
    assert d0.server is not d1.server
    assert (d0.server.env.get("A"), d1.server.env["A"]) == (None, "x")
