"""Faults of a fleet as data: what is done, what an operator reads, who brings it back.

One table, which tests, the measurement (benchmarks/bench_reliability.py) and docs/reliability.md
share. A fault is done to a host of a Stage (fault_stage.py), by root's own tools.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Optional, Sequence

from omnikit.fleet import causes

if TYPE_CHECKING:
    from fault_stage import Outcome, Stage

    Act = Callable[[Stage, str], None]

READY, OUT, FAILED, AWAY, STOPPED = (
    *("ready", "ready, not in the pool", "failed", "unreachable", "stopped"),
)
AGAIN = "ready, started again"
SERVING = (READY, OUT, AGAIN)
# Where a server of the other role was started again meanwhile, doctor names that.
OR = {"kv-client": "kv-partner"}
# Who brings it back.
ITSELF, SUPERVISOR = "itself", "supervisor"
OUTSIDE = "outside"  # whoever mends what is outside of the toolkit: cable, disk, driver, clock
DEPLOY, RESTART, STOP_DEPLOY = "invoke deploy", "invoke restart", "invoke stop, invoke deploy"

WORK = "/data/omnikit"
FAULTS = "/tmp/stand-in-faults.json"


@dataclass(frozen=True)
class Fault:
    """name, chinese: what happens. on: role of the host (prefill, decode, proxy). state: of its
    instance as status shows it. cause: the finding of doctor; "" where it has a note or nothing to
    say. do: what is done; mend: what a person mends outside of the toolkit. lossless: no request
    may be lost. brief: part of the short form.
    """

    name: str
    chinese: str
    on: str
    state: str
    cause: str
    back: str
    do: Act
    mend: Optional[Act] = None
    lossless: bool = True
    brief: bool = False
    note: str = ""  # words of a note of doctor, where there is no finding

    @property
    def alone(self) -> bool:
        """Whether nothing else may be wrong at the same time: what is lost is its own."""
        return self.on == "proxy" or not self.lossless


def sh(command: str) -> Act:
    """A shell command on the host. {host}: its name; {other}: address of a server's host."""
    return lambda stage, host: stage.sh(host, command)


def told(**fault: object) -> Act:
    """The stand-in is told what is wrong with it."""
    text = json.dumps(fault)
    return lambda stage, host: stage.write(host, FAULTS, text)


def well(stage: Stage, host: str) -> None:
    """The stand-in is well again."""
    stage.sh(host, f"rm -f {FAULTS}")


def both(*acts: Act) -> Act:
    def act(stage: Stage, host: str) -> None:
        for one in acts:
            one(stage, host)

    return act


def signal(name: str, of: str = "server") -> Act:
    """A signal to the server, its supervisor, or all of the host's processes of ours."""
    return lambda stage, host: stage.signal(host, name, of)


def files(name: str, text: str) -> tuple[Act, Act]:
    """Another file of the model, and the right one again."""
    place = f"/data/model/{name}"

    def do(stage: Stage, host: str) -> None:
        stage.sh(host, f"cp -p {place} {place}.kept")
        stage.write(host, place, text)

    return do, sh(f"mv {place}.kept {place}")


def tool(path: str, variables: str) -> tuple[Act, Act]:
    """A stand-in for an NPU tool that is told something else."""
    do = f"cp -p {path} {path}.kept; sed -i 's/^exec/{variables} exec/' {path}"
    return sh(do), sh(f"mv {path}.kept {path}")


def blocked(rule: str, on: str = "") -> tuple[Act, Act]:
    """A rule of the firewall of the host, or of another; then without it."""
    return (
        lambda stage, host: stage.sh(stage.name(on, host), stage.fill(f"iptables -A {rule}", host)),
        lambda stage, host: stage.sh(stage.name(on, host), "iptables -F"),
    )


def full(folder: str) -> tuple[Act, Act]:
    """A disk without room."""
    return sh(f"cat /dev/zero >{folder}/filler 2>/dev/null || true"), sh(f"rm {folder}/filler")


def small(folder: str) -> tuple[Act, Act]:
    """A small full disk over a folder, which is what the disk of its own has become."""
    do = f"mount -t tmpfs -o size=1m tmpfs {folder}; cat /dev/zero >{folder}/filler 2>/dev/null"
    return sh(f"{do} || true"), sh(f"umount -l {folder}")


def clock(seconds: int) -> tuple[Act, Act]:
    """What the host's Python takes for the time."""
    place = "/usr/lib/python3/dist-packages/skewed_clock"
    text = f"import time\n_true = time.time\ntime.time = lambda: _true() + {seconds}\n"

    def do(stage: Stage, host: str) -> None:
        stage.write(host, f"{place}.py", text)
        stage.write(host, f"{place}.pth", "import skewed_clock\n")

    return do, sh(f"rm {place}.py {place}.pth")


def off(stage: Stage, host: str) -> None:
    stage.fleet.stop(host)


def on(stage: Stage, host: str) -> None:
    stage.fleet.start(host)


def reboot(stage: Stage, host: str) -> None:
    """Off and on; the kernel, which is this machine's, is given another boot's identity there."""
    off(stage, host)
    on(stage, host)
    place = "/proc/sys/kernel/random/boot_id"
    stage.sh(
        host, f"cat /proc/sys/kernel/random/uuid >/tmp/boot_id; mount --bind /tmp/boot_id {place}"
    )


def cable(stage: Stage, host: str) -> None:
    stage.fleet.link(host, up=False)


def cable_in(stage: Stage, host: str) -> None:
    stage.link_up(host)


OOM = "#!/bin/sh\necho '[99999999.0] Out of memory: Killed process 77 (python3) total-vm:9kB'\n"


def out_of_memory(stage: Stage, host: str) -> None:
    stage.write(host, "/usr/local/bin/dmesg", OOM)
    stage.sh(host, "chmod +x /usr/local/bin/dmesg")
    stage.signal(host, "KILL", "server")


def _words(words: str) -> Act:
    """The server dies, and at each start with these last words."""
    return both(told(start=words), signal("KILL"))


SMI, HCCN = "/usr/local/bin/npu-smi", "/usr/bin/hccn_tool"

TABLE: tuple[Fault, ...] = (
    # --- processes ---
    Fault(
        *("server killed (SIGKILL), prefill", "prefill 服务进程被杀（SIGKILL）", "prefill"),
        *(AGAIN, "", SUPERVISOR, signal("KILL")),
        note="exit status -9",
        brief=True,
    ),
    Fault(
        *("server killed (SIGKILL), decode", "decode 服务进程被杀（SIGKILL）", "decode"),
        *(AGAIN, "", SUPERVISOR, signal("KILL")),
        note="exit status -9",
    ),
    Fault(
        *("server killed for memory (OOM)", "服务进程因内存不足被内核杀死（OOM）", "decode"),
        *(AGAIN, "", SUPERVISOR, out_of_memory, sh("rm /usr/local/bin/dmesg")),
        note="Out of memory: Killed process",
    ),
    Fault(
        *("server ends with exit code 3", "服务进程以退出码 3 结束", "prefill"),
        *(AGAIN, "", SUPERVISOR, told(exit=3)),
        note="exit status 3",
    ),
    Fault(
        *("server crashes (SIGSEGV)", "服务进程段错误（SIGSEGV）", "decode"),
        *(AGAIN, "", SUPERVISOR, signal("SEGV")),
        note="exit status -11",
    ),
    Fault(
        *("supervisor killed, its server goes with it", "守护进程被杀，服务随之结束", "prefill"),
        *(AGAIN, "", SUPERVISOR, signal("KILL", "supervisor")),
        note="its supervisor was killed",
    ),
    Fault(
        *("all processes of the instance killed", "实例的全部进程被杀", "decode"),
        *(FAILED, "supervisor-killed", DEPLOY, signal("KILL", "all")),
    ),
    Fault(
        *("server stopped (SIGSTOP), prefill", "prefill 服务进程被挂起（SIGSTOP）", "prefill"),
        *(FAILED, "process-stopped", RESTART, signal("STOP")),
    ),
    Fault(
        *("server stopped (SIGSTOP), decode", "decode 服务进程被挂起（SIGSTOP）", "decode"),
        *(FAILED, "process-stopped", RESTART, signal("STOP")),
        brief=True,
    ),
    Fault(
        *("server stopped, then continued", "服务进程被挂起后又恢复", "decode"),
        *(FAILED, "process-stopped", ITSELF, signal("STOP"), signal("CONT")),
    ),
    Fault(
        *("supervisor stopped (SIGSTOP)", "守护进程被挂起（SIGSTOP）", "prefill"),
        *(READY, "process-stopped", OUTSIDE, signal("STOP", "supervisor")),
        signal("CONT", "supervisor"),
    ),
    Fault(
        *("crash loop: memory of the NPU", "反复崩溃：NPU 显存不足", "decode"),
        *(FAILED, "crash-loop", DEPLOY, _words("RuntimeError: NPU out of memory. Tried …"), well),
        brief=True,
    ),
    Fault(
        *(
            "crash loop: a flag that the engine does not know",
            "反复崩溃：引擎不认识的参数",
            "prefill",
        ),
        *(FAILED, "crash-loop", DEPLOY, _words("error: unrecognized arguments: --no-such"), well),
    ),
    Fault(
        *("crash loop without a known cause", "反复崩溃，原因未知", "decode"),
        *(FAILED, "crash-loop", DEPLOY, _words("it went wrong"), well),
    ),
    Fault(
        *("record of the instance damaged", "实例的状态记录损坏", "prefill"),
        *(FAILED, "record-damaged", STOP_DEPLOY, sh(f"echo '{{' >{WORK}/state/{{host}}.json")),
        brief=True,
    ),
    Fault(
        *("somebody else's lock", "主机被他人的部署锁定", "decode"),
        *(READY, "being-changed", "invoke unlock"),
        sh(f'echo \'{{"owner": "ann@b", "what": "deploy", "since": 1}}\' >{WORK}/deploy.lock'),
        brief=True,
    ),
    # --- answers ---
    Fault(
        *("/health is well, answers are 500", "/health 正常，请求返回 500", "decode"),
        *(OUT, "lying-health", ITSELF, told(answer="500"), well),
        brief=True,
    ),
    Fault(
        *("/health is well, answers are no JSON", "/health 正常，返回的不是 JSON", "prefill"),
        *(OUT, "lying-health", ITSELF, told(answer="nonsense"), well),
    ),
    Fault(
        *("/health is well, answers are empty", "/health 正常，返回空内容", "decode"),
        *(OUT, "lying-health", ITSELF, told(answer="empty"), well),
    ),
    Fault(
        *("/health is well, answers are cut off", "/health 正常，返回内容被截断", "prefill"),
        *(OUT, "lying-health", ITSELF, told(answer="cut"), well),
        lossless=False,
    ),
    Fault(
        *("/health is well, connections are reset", "/health 正常，连接被重置", "decode"),
        *(OUT, "lying-health", ITSELF, told(answer="reset"), well),
        lossless=False,  # it lives on after it broke off: no other server gets the request
    ),
    Fault(
        *("/health is well, requests are never answered", "/health 正常，请求永不返回", "decode"),
        *(READY, "lying-health", ITSELF, told(answer="hang"), well),
        lossless=False,
    ),
    Fault(
        *("answers come a second later than others'", "应答比其他服务慢一秒", "decode"),
        *(READY, "server-slow", OUTSIDE, told(answer="slow"), well),
    ),
    Fault(
        *("/health says 503, requests are answered", "/health 返回 503，请求正常应答", "prefill"),
        *(FAILED, "unhealthy", ITSELF, told(health=503), well),
    ),
    Fault(
        *("/health is never answered, requests are", "/health 永不返回，请求正常应答", "decode"),
        *(FAILED, "server-hangs", ITSELF, told(health="hang"), well),
    ),
    Fault(
        *("KV kept with nothing running", "没有请求却占着 KV", "prefill"),
        *(READY, "kv-client", RESTART, told(running=0, kv=0.7), well),
    ),
    Fault(
        *("requests wait and none runs", "请求排队，没有一个在执行", "prefill"),
        *(READY, "requests-hang", RESTART, told(running=0, waiting=3), well),
    ),
    # --- links ---
    Fault(
        *("cable of a prefill host pulled", "prefill 主机网线被拔", "prefill"),
        *(AWAY, "host-unreachable", ITSELF, cable, cable_in),
    ),
    Fault(
        *("cable of a decode host pulled", "decode 主机网线被拔", "decode"),
        *(AWAY, "host-unreachable", ITSELF, cable, cable_in),
        brief=True,
    ),
    Fault(
        *("proxy to server: packets vanish", "代理到服务的数据包被丢弃", "prefill"),
        *(OUT, "proxy-way", ITSELF, *blocked("OUTPUT -d {address} -j DROP", "proxy")),
        brief=True,
    ),
    Fault(
        *(
            "proxy to server: connections refused on the way",
            "代理到服务的连接在途中被拒绝",
            "decode",
        ),
        *(OUT, "proxy-way", ITSELF),
        *blocked("OUTPUT -d {address} -p tcp -j REJECT --reject-with tcp-reset", "proxy"),
    ),
    Fault(
        *(
            "server to proxy: answers vanish (half open)",
            "服务到代理的应答被丢弃（半开连接）",
            "decode",
        ),
        *(OUT, "proxy-way", ITSELF, *blocked("OUTPUT -d {proxy} -j DROP")),
    ),
    Fault(
        *("prefill and decode do not reach each other", "prefill 与 decode 之间不通", "decode"),
        *(READY, "hosts-apart", OUTSIDE, *blocked("OUTPUT -d {other} -j DROP")),
    ),
    Fault(
        *("control host to host: packets vanish", "控制机到主机的数据包被丢弃", "prefill"),
        *(AWAY, "host-unreachable", OUTSIDE, *blocked("INPUT -s {control} -j DROP")),
    ),
    Fault(
        *("two of three packets of a server are lost", "服务主机丢包三分之二", "decode"),
        *(OUT, "proxy-way", ITSELF),
        *blocked("INPUT -s {proxy} -m statistic --mode random --probability 0.66 -j DROP"),
        lossless=False,
    ),
    Fault(
        *("SSH key taken out of authorized_keys", "SSH 公钥被从 authorized_keys 删除", "decode"),
        *(AWAY, "ssh-refused", OUTSIDE),
        sh("mv /root/.ssh/authorized_keys /root/.ssh/kept; pkill -f '^sshd: root' || true"),
        sh("mv /root/.ssh/kept /root/.ssh/authorized_keys"),
        brief=True,
    ),
    # --- hosts and disks ---
    Fault(
        *("host rebooted", "主机重启", "prefill"),
        *(STOPPED, "host-rebooted", DEPLOY, reboot),
        brief=True,
    ),
    Fault(
        *("clock an hour ahead", "时钟快一小时", "decode"),
        *(READY, "clock-skew", OUTSIDE, *clock(3600)),
    ),
    Fault(
        *("clock an hour behind", "时钟慢一小时", "prefill"),
        *(READY, "clock-skew", OUTSIDE, *clock(-3600)),
    ),
    Fault(
        *("disk of the work directory full", "工作目录所在磁盘写满", "disk"),
        *(READY, "disk-full", OUTSIDE, *full(WORK)),
        brief=True,
    ),
    Fault(
        *("disk full, and a server is killed", "磁盘写满时服务进程被杀", "disk"),
        # It is started again and serves, which its record cannot say before there is room.
        *(FAILED, "disk-full", OUTSIDE, both(full(WORK)[0], signal("KILL")), full(WORK)[1]),
    ),
    Fault(
        *("disk of the work directory read-only", "工作目录所在磁盘只读", "disk"),
        *(READY, "disk-read-only", OUTSIDE),
        sh(f"mount --bind {WORK} {WORK}; mount -o remount,bind,ro {WORK}"),
        sh(f"umount -l {WORK}"),
    ),
    Fault(
        *("disk of the logs full", "日志目录所在磁盘写满", "decode"),
        *(READY, "disk-full", OUTSIDE, *small(f"{WORK}/logs")),
    ),
    Fault(
        *("disk of the run folder full", "运行目录所在磁盘写满", "prefill"),
        *(READY, "disk-full", OUTSIDE, *small("/var/lib/omnikit")),
    ),
    Fault(
        *("/tmp full", "/tmp 写满", "decode"),
        *(READY, "disk-full", OUTSIDE),
        sh("mount -o remount,size=1m /tmp; cat /dev/zero >/tmp/filler 2>/dev/null || true"),
        sh("rm /tmp/filler; mount -o remount,size=1g /tmp"),
    ),
    Fault(
        *("/dev/shm full", "/dev/shm 写满", "prefill"),
        *(READY, "disk-full", OUTSIDE),
        sh("mount -o remount,size=1m /dev/shm; cat /dev/zero >/dev/shm/filler 2>/dev/null || true"),
        sh("rm /dev/shm/filler; mount -o remount,size=1g /dev/shm"),
    ),
    # --- the proxy: there is one, so requests are lost while it is gone ---
    Fault(
        *("proxy killed (SIGKILL)", "代理进程被杀（SIGKILL）", "proxy"),
        *(AGAIN, "", SUPERVISOR, signal("KILL")),
        lossless=False,
        note="exit status -9",
        brief=True,
    ),
    Fault(
        *("a worker of nginx killed", "nginx 的一个 worker 被杀", "proxy"),
        *(READY, "", ITSELF, signal("KILL", "worker")),
        lossless=False,
    ),
    Fault(
        *("disk of the proxy's run folder full", "代理运行目录所在磁盘写满", "proxy"),
        *(READY, "disk-full", OUTSIDE, *full("/var/lib/omnikit")),
    ),
    # --- servers that are not alike ---
    Fault(
        *("other weights on one host", "一台主机上的权重不同", "prefill"),
        *(READY, "servers-differ", OUTSIDE, *files("model.safetensors", "other weights")),
    ),
    Fault(
        *("another tokenizer on one host", "一台主机上的分词器不同", "decode"),
        *(READY, "servers-differ", OUTSIDE, *files("tokenizer.json", '{"x": 1}')),
        brief=True,
    ),
    Fault(
        *("another chat template on one host", "一台主机上的对话模板不同", "decode"),
        *(READY, "servers-differ", OUTSIDE),
        *files("tokenizer_config.json", '{"chat_template": "other"}'),
    ),
    Fault(
        *("another release of the engine on one host", "一台主机上的引擎版本不同", "prefill"),
        *(READY, "servers-differ", OUTSIDE, told(version="0.22.1"), well),
    ),
    Fault(
        *("another block size of the KV cache", "KV 块大小不同", "decode"),
        *(READY, "servers-differ", OUTSIDE, told(block_size=64), well),
    ),
    Fault(
        *("a server splits text otherwise", "服务的分词结果不同", "decode"),
        *(READY, "servers-differ", OUTSIDE, told(tokens=2), well),
    ),
    # --- NPUs ---
    Fault(
        *("a chip says Warning", "NPU 芯片健康状态为 Warning", "decode"),
        *(READY, "device-sick", OUTSIDE, *tool(SMI, "FAKE_NPU_SMI=a3.chip-warning")),
        brief=True,
    ),
    Fault(
        *("device file of an NPU gone", "NPU 设备文件消失", "prefill"),
        *(READY, "device-gone", OUTSIDE),
        sh("rm /dev/davinci7"),
        sh("mknod -m 666 /dev/davinci7 c 1 3"),
    ),
    Fault(
        *("driver does not answer npu-smi", "驱动不响应 npu-smi", "decode"),
        *(READY, "npu-smi-fails", OUTSIDE, *tool(SMI, "FAKE_NPU_SMI=dcmi-8005")),
    ),
    Fault(
        *("link of an NPU down", "NPU 网口 link down", "prefill"),
        *(READY, "link-down", OUTSIDE, *tool(HCCN, "FAKE_LINK=down")),
    ),
    Fault(
        *("NPUs of hosts do not reach each other", "主机间 NPU 网络不通", "prefill"),
        *(READY, "devices-apart", OUTSIDE, *tool(HCCN, "FAKE_PING=lost")),
    ),
)


HEADERS = (
    ("Fault", "`invoke status`", "`invoke doctor`", "Back by", "After", "Lost"),
    ("故障", "`invoke status`", "`invoke doctor`", "如何恢复", "用时", "丢失"),
)
_BACK = {
    ITSELF: ("the proxy, by itself", "代理自动恢复"),
    SUPERVISOR: ("the host, by itself (`restart.policy`)", "主机自动重启（`restart.policy`）"),
    OUTSIDE: ("whoever mends it", "故障消除即恢复"),
}
# doctor's words; the English ones are those of configs/failures.yaml.
_CHINESE = {
    "being-changed": "有部署正在进行，或中途中断。",
    "clock-skew": "主机时钟与本机不一致，日志和时限会出错。",
    "crash-loop": "服务反复退出，主机已停止重启它。",
    "device-gone": "规划使用的 NPU 在主机上已不存在。",
    "device-sick": "NPU 报告自身不健康。",
    "devices-apart": "不同主机的 NPU 之间网络不通。",
    "disk-full": "磁盘已满或将满。",
    "disk-read-only": "服务要写入的文件系统变为只读。",
    "npu-smi-fails": "主机上的 NPU 驱动没有响应。",
    "host-rebooted": "部署之后主机重启过，服务已不在。",
    "host-unreachable": "主机没有响应。",
    "hosts-apart": "部署内的主机之间不通，KV 无法传输。",
    "kv-client": "客户端在 prefill 与 decode 之间离开，KV 无人来取。",
    "link-down": "NPU 网口断开。",
    "lying-health": "服务自称正常（/health），请求却出错、返回乱码或没有应答。",
    "process-stopped": "进程被信号挂起，收到 SIGCONT 之前什么也不做。",
    "proxy-way": "服务运行正常，但代理所在主机连不上它。",
    "record-damaged": "主机上该实例的状态记录损坏。",
    "requests-hang": "请求在排队，没有一个在执行。",
    "server-hangs": "服务接受连接，但什么也不回答。",
    "server-slow": "服务应答明显慢于同类。",
    "servers-differ": "各服务的权重、分词器、模板、版本或设置不一致。",
    "ssh-refused": "SSH 服务不再允许本机登录。",
    "supervisor-killed": "守护进程被杀，其服务随之结束，不会自动重启。",
    "unhealthy": "服务报告自身不正常。",
}


def row(fault: Fault, chinese: bool = False) -> list[str]:
    """What of a fault's row was not measured."""
    if fault.cause:
        words = _CHINESE[fault.cause] if chinese else causes.entry(fault.cause).cause
        told = f"`{fault.cause}`：{words}" if chinese else f"`{fault.cause}`: {words}"
    elif fault.note:
        told = f"{'说明：' if chinese else 'a note: '}`{fault.note}`"
    else:
        told = "–"
    commands = ", ".join(f"`{one}`" for one in fault.back.split(", "))
    back = _BACK[fault.back][chinese] if fault.back in _BACK else commands
    return [fault.chinese if chinese else fault.name, f"`{fault.state}`", told, back]


def table(outcomes: Sequence[Outcome], chinese: bool = False) -> list[str]:
    """The table as Markdown."""
    known = {one.name: one for one in TABLE}
    lines = [HEADERS[chinese], ("---",) * len(HEADERS[chinese])]
    for one in outcomes:
        after = "–" if one.seconds is None else f"{one.seconds:g} s"
        lines.append((*row(known[one.name], chinese), after, f"{one.lost} / {one.requests}"))
    return [f"| {' | '.join(line)} |" for line in lines]
