"""Words that other modules use as names, in Chinese: states, steps, checks, versions.

A name that is not here stays as it is: names of users, hosts and programs are nobody's words.
"""

from __future__ import annotations

from typing import Mapping

STATES: Mapping[str, str] = {
    "ready": "就绪",
    "starting": "启动中",
    "stopped": "已停止",
    "failed": "失败",
    "unreachable": "无法连接",
    "unknown": "未知",
    "warning": "警告",
    "ok": "正常",
    "changed": "已变更",
    "cut off": "中断",
    "not deployed from here": "未从本机部署",
}
STEPS: Mapping[str, str] = {
    "set up": "准备",
    "rank tables": "生成 rank table",
    "compare the source": "比对源码",
    "real requests": "真实请求验证",
    "Ask for the accelerators": "查询加速卡",
    "Compare with what runs": "与运行中的服务比对",
    "Copy the source": "复制源码",
    "Fetch the archive": "取回归档",
    "Fetch the logs": "取回日志",
    "Install from the source": "从源码安装",
    "Look at the hosts": "检查主机",
    "Ship the archive": "下发归档",
    "Start the containers": "启动容器",
    "Start the proxy": "启动代理",
    "Start the servers": "启动服务",
    "Start them": "启动节点",
    "Start what ran before": "恢复之前的服务",
    "Stop the servers": "停止服务",
    "Stop them": "停止节点",
    "Stop what was started": "停止已启动的服务",
    "Take the lock": "加锁",
    "Wait for the servers": "等待服务就绪",
    "Wait for them": "等待节点就绪",
    "Wait for what ran before": "等待之前的服务就绪",
    "Write it down and unlock": "记录并解锁",
}
CHECKS: Mapping[str, str] = {
    "container image": "容器镜像",
    "device files": "设备文件",
    "devices": "设备",
    "driver and dcmi": "驱动与 dcmi",
    "driver version": "驱动版本",
    "firmware": "固件",
    "free disk": "磁盘剩余空间",
    "free memory of the chips (HBM)": "芯片剩余内存（HBM）",
    "health of the chips": "芯片健康状态",
    "host name": "主机名",
    "limit of open files": "打开文件数上限",
    "links of the devices": "设备链路",
    "addresses of the devices": "设备地址",
    "memory": "内存",
    "model folder": "模型目录",
    "network interface": "网络接口",
    "other programs on the devices": "占用设备的其他程序",
    "planned address": "规划地址",
    "planned devices in no other container": "规划的设备未被其他容器占用",
    "planned devices there": "规划的设备存在",
    "planned ports free": "规划的端口空闲",
    "processor architecture": "处理器架构",
    "Python of the host": "主机 Python",
    "record of the driver's installation": "驱动安装记录",
    "shared memory (/dev/shm)": "共享内存（/dev/shm）",
    "shared memory of containers": "容器共享内存",
    "TLS switch of the devices": "设备 TLS 开关",
    "TLS switch equal on all devices": "所有设备 TLS 开关一致",
    "container image equal on all hosts": "所有主机容器镜像一致",
    "ways to the other hosts": "到其他主机的路由",
    "weights, their description and --quantization of the same kind": (
        "权重、其描述与 --quantization 一致"
    ),
    "what containers mount": "容器挂载内容",
}
VERSIONS: Mapping[str, str] = {
    "engine": "引擎",
    "model": "模型",
    "image": "镜像",
    "source": "源码",
    "NPU driver": "NPU 驱动",
    "NPU firmware": "NPU 固件",
    "container engine": "容器引擎",
    "image ID on the host": "主机上的镜像 ID",
    "Python on the host": "主机 Python",
}
CHINESE: Mapping[str, str] = {**VERSIONS, **CHECKS, **STEPS, **STATES}
