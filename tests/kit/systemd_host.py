"""A host that a real systemd runs: this machine's own files below an overlay, in namespaces.

What it writes is gone with it, but below the folder that it shares with the test. Its network is
this machine's. Needs root.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Optional

from hostkit.base.health import wait_until

# Nothing of this machine is started there: of its units only the targets themselves are left.
_BOOT = r"""
set -euo pipefail
shared=$1 units=$2
mount --make-rprivate /
base=$(mktemp -d)
mount -t tmpfs tmpfs "$base"
mkdir "$base"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" "$base/root"
root=$base/root
rm -rf "$root"/{etc,usr/lib,lib}/systemd/system/*.wants "$root/etc/fstab"
printf '[Manager]\nDefaultStandardOutput=null\n' > "$root/etc/systemd/system.conf"
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
cp -P "$units"/*.service "$root/etc/systemd/system" 2>/dev/null || true
for unit in "$units"/*.service; do
    [[ -e $unit ]] && ln -s "../${unit##*/}" "$root/etc/systemd/system/multi-user.target.wants"
done
ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount --rbind /dev "$root/dev"
mkdir -p "$root$shared"
mount --bind "$shared" "$root$shared"
cat /proc/sys/kernel/random/uuid > "$root/run/boot_id"
mount --bind "$root/run/boot_id" "$root/proc/sys/kernel/random/boot_id"
export container=lxc
exec chroot "$root" /lib/systemd/systemd
"""


class SystemdHost:
    """shared: the folder that this host and the test have in common, and a reboot leaves.

    Units that were installed in it are there after the next boot as well.
    """

    def __init__(self, shared: Path) -> None:
        self.shared = shared
        self.units = shared / "units-before-boot"
        self.units.mkdir()
        self.child: Optional[subprocess.Popen[bytes]] = None
        self.init = 0
        top = Path("/sys/fs/cgroup")
        top = top / "unified" if (top / "unified").is_dir() else top
        self.group = top / f"omnikit-test-{os.getpid()}"

    def boot(self) -> None:
        """Start it; ready when systemd has reached its target."""
        group = Path("/sys/fs/cgroup/unified")
        group = (
            group if group.is_dir() else Path("/sys/fs/cgroup")
        ) / f"omnikit-test-{os.getpid()}"
        group.mkdir(exist_ok=True)
        words = ["unshare", "-m", "-p", "-f", "-C", "-u", "-i", "--kill-child", "bash", "-c", _BOOT]
        self.child = subprocess.Popen(
            [*words, "boot", str(self.shared), str(self.units)],
            stdin=subprocess.DEVNULL,
            stdout=(self.shared / "boot.log").open("ab"),
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: (self.group / "cgroup.procs").write_text("0"),  # type: ignore[arg-type, return-value]
        )
        wait_until(self._is_up, 60, 0.1)
        assert self._is_up(), (self.shared / "boot.log").read_text()

    def _is_up(self) -> bool:
        assert self.child is not None
        found = Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children").read_text().split()
        self.init = int(found[0]) if found else 0
        return bool(found) and self.run("systemctl", "is-active", "multi-user.target")[0] == 0

    def run(self, *words: str) -> tuple[int, str]:
        """A command there: its exit status, and what it said."""
        inside = ["nsenter", "-t", str(self.init), "-a", "-r", "-w", *words]
        done = subprocess.run(inside, capture_output=True, text=True, timeout=120)
        return done.returncode, done.stdout + done.stderr

    def reboot(self) -> None:
        """As after a power failure, but for what was written."""
        for unit in self.run("sh", "-c", "ls /etc/systemd/system/*.service")[1].split():
            text = self.run("cat", unit)[1]
            (self.units / Path(unit).name).write_text(text)
        self.end()
        self.boot()

    def end(self) -> None:
        """All that runs there ends at once."""
        if self.init:
            os.kill(self.init, signal.SIGKILL)
        if self.child is not None:
            self.child.wait(30)
            below = sorted(self.group.rglob("*/"), reverse=True)
            for group in [path for path in below if path.is_dir()] + [self.group]:
                wait_until(lambda path=group: _removed(path), 10, 0.05)  # type: ignore[misc]


def _removed(group: Path) -> bool:
    with suppress(OSError):
        group.rmdir()
    return not group.exists()
