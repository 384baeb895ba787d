"""The driver's files and versions, in a tree of an A3's files."""

from __future__ import annotations

import shutil

import pytest
from check_cases import ids, limits, look, npu_parameters, one, put

from hostkit.checks import devices


def files(folder, change=lambda root: None, **more):
    given = npu_parameters(folder, **more)
    change(folder / "root")
    return look(devices.files, given)


def version(folder, running, change=lambda root: None, **more):
    given = npu_parameters(folder, **more)
    change(folder / "root")
    return look(lambda group: devices.version(group, running), given)


def test_what_an_installer_leaves(tmp_path):
    group = files(tmp_path)
    assert {entry["state"] for entry in group.checks} == {"ok"}
    assert one(group, "npu.install")["found"] == (
        "/etc/ascend_install.info: installation complete, below /usr/local/Ascend"
    )
    assert one(group, "npu.driver_files")["found"] == "/usr/local/Ascend/driver, /usr/local/dcmi"
    assert one(group, "npu.cann")["found"].startswith("8.2.RC1 (")


def test_without_the_record(tmp_path):
    group = files(tmp_path, lambda root: (root / "etc/ascend_install.info").unlink())
    entry = one(group, "npu.install")
    assert (entry["state"], entry["found"]) == ("failed", "no /etc/ascend_install.info")
    assert one(group, "npu.driver_files")["state"] == "ok"


def test_an_installation_that_did_not_end(tmp_path):
    def half(root):
        file = root / "etc/ascend_install.info"
        file.write_text(file.read_text().replace("=complete", "=interrupted"))

    entry = one(files(tmp_path, half), "npu.install")
    assert entry["state"] == "failed"
    assert "installation interrupted" in entry["found"]


def test_a_record_of_an_older_driver_has_no_status(tmp_path):
    def older(root):
        put(root, "/etc/ascend_install.info", "Driver_Install_Path_Param=/usr/local/Ascend\n")

    assert one(files(tmp_path, older), "npu.install")["state"] == "ok"


def test_a_driver_that_is_installed_elsewhere(tmp_path):
    def elsewhere(root):
        put(root, "/etc/ascend_install.info", "Driver_Install_Path_Param=/opt/Ascend\n")
        put(root, "/opt/Ascend/driver/version.info", "Version=24.1.0\n")

    group = files(tmp_path, elsewhere)
    assert one(group, "npu.driver_files")["found"] == "/opt/Ascend/driver, /usr/local/dcmi"
    assert "firmware_version" not in group.facts
    found = one(version(tmp_path, "25.2.1"), "npu.driver")["found"]
    assert found == "25.2.1 runs, /opt/Ascend/driver/version.info says 24.1.0"


def test_missing_folders(tmp_path):
    def without(root):
        shutil.rmtree(root / "usr/local/dcmi")
        shutil.rmtree(root / "usr/local/Ascend/driver")

    entry = one(files(tmp_path, without), "npu.driver_files")
    assert entry["state"] == "failed"
    assert entry["found"] == "missing: /usr/local/Ascend/driver, /usr/local/dcmi"


def test_cann_is_needed_on_the_host_only_without_containers(tmp_path):
    def without(root):
        shutil.rmtree(root / "usr/local/Ascend/ascend-toolkit")

    group = files(tmp_path, without)
    assert one(group, "npu.cann")["state"] == "failed"
    group = files(tmp_path, runtime="docker")
    assert "npu.cann" not in ids(group) and "cann_version" not in group.facts


@pytest.mark.parametrize(
    ("running", "wanted", "state", "todo"),
    [
        ("25.2.1", None, "ok", ""),
        ("25.2.1", "25.2.1", "ok", ""),
        ("25.0.1", None, "failed", "an update takes effect when the host starts: reboot"),
        ("25.2.1", "25.3.0", "failed", "install driver 25.3.0, or set checks.driver_version"),
    ],
)
def test_the_running_driver_is_the_installed_and_the_wanted_one(
    tmp_path, running, wanted, state, todo
):
    group = version(tmp_path, running, checks=limits(driver_version=wanted))
    entry = one(group, "npu.driver")
    assert (entry["state"], entry["todo"]) == (state, todo)
    assert group.facts == {"driver_version": running}


@pytest.mark.parametrize(
    ("running", "state"),
    [("25.5.1", "ok"), ("26.0", "ok"), ("25.2.1", "warning"), ("24.1.rc2", "warning")],
)
def test_a_driver_older_than_the_release_wants_is_a_warning(tmp_path, running, state):
    entry = one(version(tmp_path, running, checks=limits(driver_oldest="25.5.1")), "npu.driver_age")
    assert (entry["state"], entry["found"]) == (state, running)
    assert "checks.driver_oldest" in entry["needed"]


def test_letters_of_a_version_may_be_large_or_small(tmp_path):
    def candidate(root):
        put(root, "/usr/local/Ascend/driver/version.info", "Version=24.1.RC3\n")

    assert one(version(tmp_path, "24.1.rc3", candidate), "npu.driver")["state"] == "ok"


def test_a_driver_without_a_version_file(tmp_path):
    def without(root):
        (root / "usr/local/Ascend/driver/version.info").unlink()

    entry = one(version(tmp_path, "25.2.1", without), "npu.driver")
    assert (entry["state"], entry["found"]) == (
        "ok",
        "25.2.1 runs; /usr/local/Ascend/driver/version.info says nothing",
    )
