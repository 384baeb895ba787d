"""Real hosts behind real SSH servers on this machine: namespaces, each with a root of its own.

A host has its own processes, network, host name, /etc/hosts, /tmp, /root, /run, /dev and SSH host
key; its files lie over this machine's. It can be rebooted, and taken off the network. Needs root.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator, Mapping, Optional

from docker_host import wait_for
from needs import needs

TESTS = Path(__file__).parents[1]
# Where a host has what stands in for servers and NPU tools.
STAND_INS = "/opt/omnikit-tests"

# Runs as process 1 of a host. Arguments: name, address with prefix, gateway, its folder.
_BOOT = r"""
set -euo pipefail
name=$1 address=$2 gateway=$3 own=$4
hostname "$name"
mkdir -p "$own/upper" "$own/work" "$own/root"
mount -t overlay "$name" -o "lowerdir=/,upperdir=$own/upper,workdir=$own/work" "$own/root"
cd "$own/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs dev
for device in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do
  read -r node major minor <<<"$device"
  mknod -m 666 "dev/$node" c "$major" "$minor"
done
for node in davinci_manager hisi_hdc devmm_svm davinci{0..15}; do
  mknod -m 666 "dev/$node" c 1 3
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p run/sshd data
echo "$name" >etc/hostname
cp "$own/hosts" etc/hosts
ip link set lo up
read -r _ <"$own/go"  # until the network is there
ip link set eth0 up
ip address add "$address" dev eth0
ip route add default via "$gateway"
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
  chroot "$own/root" /usr/sbin/sshd -D -e -f /etc/ssh/fleet_config
"""

_SSHD = """\
Port 22
HostKey /etc/ssh/fleet_key
PermitRootLogin {root}
PasswordAuthentication {password}
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
MaxStartups 200:30:400
MaxSessions 100
PidFile none
PrintMotd no
Subsystem sftp internal-sftp
"""


@dataclass
class FleetHost:
    """One host. folder holds its files; pid: its process 1 as seen here, None when it is off."""

    name: str
    address: str
    folder: Path
    pid: Optional[int] = None
    unshare: Optional[subprocess.Popen[bytes]] = None

    def path(self, inside: str) -> Path:
        """A file of the running host, as seen here."""
        return Path(f"/proc/{self.pid}/root") / inside.lstrip("/")


@dataclass
class Fleet:
    """The hosts by name, the key that logs in, and a file with their host keys."""

    folder: Path
    network: str
    hosts: dict[str, FleetHost] = field(default_factory=dict)
    hub: Optional[subprocess.Popen[bytes]] = None  # holds the namespace with the bridge
    uplink: str = ""

    @property
    def key(self) -> Path:
        return self.folder / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def settings(self) -> str:
        """ "hosts:" of an environment, as YAML."""
        rows = [
            f"  {h.name}: {{address: {h.address}, user: root, private_key: {self.key},"
            " python: /usr/bin/python3}"
            for h in self.hosts.values()
        ]
        keys = f"keys: {{private_key: {self.key}, known_hosts: {self.known_hosts}}}"
        return "\n".join(["hosts:", *rows, keys]) + "\n"

    def run(self, host: str, command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A shell command on a host, as root, by SSH."""
        argv = ["ssh", "-i", str(self.key), "-o", f"UserKnownHostsFile={self.known_hosts}"]
        argv += ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=5"]
        target = f"root@{self.hosts[host].address}"
        return subprocess.run(
            [*argv, target, command], check=check, capture_output=True, text=True, timeout=60
        )

    def stop(self, name: str) -> None:
        """Switch a host off: all its processes end at once."""
        host = self.hosts[name]
        if host.unshare is None:
            return
        # The namespace's process 1 ends with unshare (--kill-child), and everything with it.
        host.unshare.kill()
        host.unshare.wait()
        wait_for(lambda: not Path(f"/proc/{host.pid}").exists(), f"{name} is off", 20)
        host.unshare = host.pid = None

    def start(self, name: str) -> None:
        """Switch a host on and wait for its SSH server; its files are as it left them."""
        self._boot(self.hosts[name])
        self._listens(self.hosts[name])

    def link(self, name: str, up: bool) -> None:
        """Take a host off the network, or put it on it again."""
        self._in_hub("ip", "link", "set", self._wire(self.hosts[name]), "up" if up else "down")

    def _wire(self, host: FleetHost) -> str:
        return f"n{list(self.hosts).index(host.name)}"

    def _in_hub(self, *words: str) -> None:
        assert self.hub is not None
        _sh("nsenter", "--target", str(self.hub.pid), "--net", *words)

    def connect(self) -> None:
        """Make the bridge between the hosts, in a namespace that no firewall of this machine
        reaches, and a line from it to this machine."""
        mine = Path("/proc/self/ns/net").readlink()
        self.hub = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        place = Path(f"/proc/{self.hub.pid}/ns/net")
        wait_for(lambda: place.readlink() != mine, "the network between the hosts", 20)
        self._in_hub("ip", "link", "add", "br0", "type", "bridge")
        self._in_hub("ip", "link", "set", "br0", "up")
        peer = ("type", "veth", "peer", "up0", "netns", str(self.hub.pid))
        _sh("ip", "link", "add", self.uplink, *peer)
        self._in_hub("ip", "link", "set", "up0", "master", "br0", "up")
        _sh("ip", "address", "add", f"{self.network}.254/24", "dev", self.uplink)
        _sh("ip", "link", "set", self.uplink, "up")

    def disconnect(self) -> None:
        """Take the bridge away, and the line before it: a busy kernel takes minutes to notice that
        nobody is in a namespace any more.
        """
        if Path(f"/sys/class/net/{self.uplink}").exists():
            _sh("ip", "link", "delete", self.uplink)
        if self.hub is not None:
            self.hub.kill()
            self.hub.wait()

    def _boot(self, host: FleetHost) -> None:
        go = host.folder / "go"
        go.unlink(missing_ok=True)
        os.mkfifo(go)
        prefix = f"{host.address}/24"
        argv = ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child"]
        argv += ["--propagation", "private", "bash", "-c", _BOOT, "boot"]
        argv += [host.name, prefix, f"{self.network}.254", str(host.folder)]
        with (host.folder / "boot.log").open("ab") as log:
            host.unshare = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        children = Path(f"/proc/{host.unshare.pid}/task/{host.unshare.pid}/children")
        wait_for(lambda: bool(children.read_text().strip()), f"{host.name} boots", 20)
        host.pid = int(children.read_text().split()[0])
        mine = Path("/proc/self/ns/net").readlink()
        wait_for(
            lambda: Path(f"/proc/{host.pid}/ns/net").readlink() != mine, "its network is apart", 20
        )
        wire = self._wire(host)
        # Made here, where both namespaces can be named, then moved.
        made = f"{self.uplink}{wire}"
        assert self.hub is not None
        # A host keeps its MAC address over a reboot, as a real one does: its neighbours know it.
        mac = f"02:{':'.join(f'{int(part):02x}' for part in host.address.split('.'))}:01"
        peer = ("peer", "eth0", "address", mac, "netns", str(host.pid))
        _sh("ip", "link", "add", made, "type", "veth", *peer)
        _sh("ip", "link", "set", made, "name", wire, "netns", str(self.hub.pid))
        self._in_hub("ip", "link", "set", wire, "master", "br0", "up")
        with go.open("w") as gate:
            gate.write("go\n")

    def _listens(self, host: FleetHost) -> None:
        probe = ["bash", "-c", f"exec 3<>/dev/tcp/{host.address}/22"]

        def up() -> bool:
            assert host.unshare is not None and host.unshare.poll() is None, self.boot_log(host)
            try:
                return subprocess.run(probe, capture_output=True, timeout=1).returncode == 0
            except subprocess.TimeoutExpired:
                return False

        wait_for(up, f"{host.name} answers", 30)

    def boot_log(self, host: FleetHost) -> str:
        return (host.folder / "boot.log").read_text()[-2000:]


def _sh(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)


@contextmanager
def ssh_fleet(
    folder: Path,
    names: list[str],
    *,
    password: Optional[str] = None,
    authorized: bool = True,
    npu: bool = False,
    variables: Optional[Mapping[str, Mapping[str, str]]] = None,
) -> Iterator[Fleet]:
    """Hosts of these names. password: root's, who may then log in with it.

    authorized: the fleet's key may log in. npu: stand-ins for the NPU tools are on the hosts'
    PATH. variables: of every log-in, by host (for the stand-ins).
    """
    needs("unshare", "nsenter", "ip", "sshd", "ssh", root=True)
    number = os.getpid() % 200 + 20
    fleet = Fleet(folder, f"10.{number}.{len(list(Path('/sys/class/net').iterdir())) % 250}")
    fleet.uplink = f"of{number}x{fleet.network.rpartition('.')[2]}"
    folder.mkdir(parents=True, exist_ok=True)
    _sh("mount", "-t", "tmpfs", "-o", "mode=755", "omnikit-fleet", str(folder))
    try:
        _make_keys(fleet, names)
        fleet.connect()
        for host in fleet.hosts.values():
            own = (variables or {}).get(host.name, {})
            _furnish(fleet, host, password, authorized, npu, own)
            fleet._boot(host)
        for host in fleet.hosts.values():
            fleet._listens(host)
        yield fleet
    finally:
        for host in fleet.hosts.values():
            fleet.stop(host.name)
        fleet.disconnect()
        _sh("umount", "--lazy", str(folder))
        shutil.rmtree(folder)


def _make_keys(fleet: Fleet, names: list[str]) -> None:
    new_key(fleet.key)
    lines, hosts = [], ["127.0.0.1 localhost"]
    for index, name in enumerate(names, 1):
        host = FleetHost(name, f"{fleet.network}.{index}", fleet.folder / name)
        fleet.hosts[name] = host
        upper = host.folder / "upper" / "etc" / "ssh"
        upper.mkdir(parents=True)
        public = new_key(upper / "fleet_key")
        lines.append(f"{host.address} {public}")
        hosts.append(f"{host.address} {name}")
    fleet.known_hosts.write_text("\n".join(lines) + "\n")
    for host in fleet.hosts.values():
        (host.folder / "hosts").write_text("\n".join(hosts) + "\n")


def new_key(path: Path) -> str:
    """Make an ed25519 key pair in place of what is there; returns the public one's type and key."""
    path.unlink(missing_ok=True)
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)]
    subprocess.run(argv, check=True)
    return " ".join(path.with_name(path.name + ".pub").read_text().split()[:2])


def _furnish(
    fleet: Fleet,
    host: FleetHost,
    password: Optional[str],
    authorized: bool,
    npu: bool,
    variables: Mapping[str, str],
) -> None:
    """Files that the host finds when it boots."""
    upper = host.folder / "upper"
    root = "yes" if password else "prohibit-password"
    config = _SSHD.format(root=root, password="yes" if password else "no")
    if variables:
        pairs = " ".join(shlex.quote(f"{name}={value}") for name, value in variables.items())
        config += f"SetEnv {pairs}\n"
    (upper / "etc/ssh/fleet_config").write_text(config)
    home = upper / "root"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    home.chmod(0o700)
    os.setxattr(home, "trusted.overlay.opaque", b"y")  # nothing of this machine's /root shows
    if authorized:
        keys = home / ".ssh" / "authorized_keys"
        keys.write_text(fleet.key.with_name(fleet.key.name + ".pub").read_text())
        keys.chmod(0o600)
    if password:
        hashed = subprocess.run(
            ["openssl", "passwd", "-6", "-stdin"],
            input=password,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        shadow = upper / "etc" / "shadow"
        others = [x for x in Path("/etc/shadow").read_text().splitlines() if x[:5] != "root:"]
        shadow.write_text("\n".join([f"root:{hashed}:19000:0:99999:7:::", *others]) + "\n")
        shadow.chmod(0o600)
    # Copies: a host does not see this machine's /tmp, where the project may be.
    tests = upper / STAND_INS.lstrip("/")
    tests.mkdir(parents=True)
    shutil.copy(TESTS / "kit" / "fleet_server.py", tests)
    if npu:
        shutil.copytree(TESTS / "fake_npu", tests / "fake_npu")
        shutil.copytree(TESTS / "facts" / "npu", tests / "facts" / "npu")
        for tool in (tests / "fake_npu").iterdir():
            if tool.name == "ip":  # a host has a network of its own to ask
                continue
            place = "usr/bin" if tool.name == "hccn_tool" else "usr/local/bin"
            (upper / place).mkdir(parents=True, exist_ok=True)
            wrapper = upper / place / tool.name
            wrapper.write_text(f'#!/bin/sh\nexec {STAND_INS}/fake_npu/{tool.name} "$@"\n')
            wrapper.chmod(0o755)
