"""The words of a report in English and Chinese. English is what stands in the code."""

from __future__ import annotations

from typing import Any, Mapping

from omnikit import report_names

LANGUAGES = ("en", "zh")

CHINESE: Mapping[str, str] = {
    "Report of {name}": "{name} 环境报告",
    "made {time}": "生成时间 {time}",
    "Contents": "目录",
    "Please note": "请注意",
    "Overview": "概览",
    "Topology": "拓扑",
    "State": "状态",
    "Instances": "实例",
    "Host checks": "主机检查",
    "Deploy timeline": "部署时间线",
    "Releases": "发布记录",
    "Who changed what": "变更记录",
    "Versions": "版本",
    "Rank tables": "Rank table",
    "Settings that differ from the defaults": "与默认值不同的配置",
    "Benchmarks": "性能测试",
    "Profiles": "性能分析",
    "Errors in logs": "日志中的错误",
    "serves": "正常服务",
    "does not serve": "未提供服务",
    "not known": "未知",
    "{file} is damaged and was left out: {fault}.": "{file} 已损坏，未采用：{fault}。",
    "host {host}: {reason}": "主机 {host}：{reason}",
    "{number} hosts cannot be reached: {hosts}. {host}: {reason}": (
        "{number} 台主机无法连接：{hosts}。{host}：{reason}"
    ),
    "The state of the servers could not be asked: {reason}": "无法查询服务状态：{reason}",
    "Nothing was deployed from this machine; no host was asked for its state.": (
        "未从本机部署过；没有向任何主机查询状态。"
    ),
    "{name} does not serve now: see the state of its servers.": (
        "{name} 目前未提供服务：请看各服务的状态。"
    ),
    "All times are in UTC (Z) unless they say otherwise; those of logs are as the logs say.": (
        "除另有说明外，所有时间均为 UTC（Z）；日志中的时间按日志原样。"
    ),
    "state": "状态",
    "entry": "入口",
    "model": "模型",
    "served as": "服务名",
    "engine": "引擎",
    "runtime": "运行方式",
    "hosts": "主机",
    "host": "主机",
    "instances": "实例",
    "instance": "实例",
    "{instance}, host {number} of {of}": "{instance}，第 {number}/{of} 台",
    "node": "节点",
    "servers ready": "就绪服务",
    "most KV use": "最高 KV 占用",
    "Servers that are not ready": "未就绪的服务",
    "All servers": "全部服务",
    "All servers ({number})": "全部服务（{number}）",
    "devices": "设备",
    "device": "设备",
    "proxy": "代理",
    "role": "角色",
    "address": "地址",
    "last deployment": "最近一次部署",
    "present release": "当前发布",
    "prefill": "prefill",
    "decode": "decode",
    "colocated": "混合部署",
    "{instances} instances on {hosts} hosts": "{instances} 个实例，{hosts} 台主机",
    "1 instance on {hosts} hosts": "1 个实例，{hosts} 台主机",
    "{instances} instances on 1 host": "{instances} 个实例，1 台主机",
    "1 instance on 1 host": "1 个实例，1 台主机",
    "{devices} devices": "{devices} 个设备",
    "KV transfer": "KV 传输",
    "requests": "请求",
    "no devices": "无加速设备",
    "Hosts, instances and what flows between them": "主机、实例以及它们之间的数据流",
    "API ports": "API 端口",
    "KV ports": "KV 端口",
    "tp": "TP",
    "dp": "DP",
    "dp ranks": "DP rank",
    "kv_rank": "kv_rank",
    "container": "容器",
    "port": "端口",
    "uptime": "运行时长",
    "running": "处理中",
    "waiting": "排队中",
    "KV use": "KV 占用",
    "One completion was answered: {found}": "一次补全请求得到回答：{found}",
    "The completion failed: {found}": "补全请求失败：{found}",
    "The state was not to be had.": "无法取得状态。",
    "check": "检查项",
    "found": "实际",
    "needed": "要求",
    "what to do": "处理方法",
    "What is not ok": "未通过的检查",
    "checked at": "检查时间",
    "ok": "通过",
    "warnings": "警告",
    "failed": "失败",
    "No host was checked yet: invoke check-env, or this report with --check.": (
        "尚未检查主机：invoke check-env，或生成报告时加 --check。"
    ),
    "Where the time of the last deployment went": "最近一次部署的时间分布",
    "{command}, {began}, by {owner}: {seconds} s, {result}": (
        "{command}，{began}，执行者 {owner}：{seconds} 秒，{result}"
    ),
    "Waiting for engines: {seconds} s ({share}).": "等待引擎：{seconds} 秒（{share}）。",
    "left out: {fault}": "未列入：{fault}",
    "Hosts": "主机",
    "waiting for engines, s": "等待引擎（秒）",
    "step": "步骤",
    "Steps": "步骤",
    "seconds": "秒",
    "share": "占比",
    "slowest host": "最慢主机",
    "at second": "时刻（秒）",
    "Critical path: what the end waited for": "关键路径：结束前依次等待的步骤",
    "between steps": "步骤之间",
    "other steps": "其他步骤",
    "start of a server": "服务启动",
    "{node} starts": "{node} 启动",
    "No deployment was recorded here.": "此处没有部署记录。",
    "release": "发布",
    "time": "时间",
    "by": "执行者",
    "image ID": "镜像 ID",
    "source": "源码",
    "what": "内容",
    "result": "结果",
    "No deployment ended well yet.": "尚无成功的部署。",
    "Nothing was changed from this machine yet.": "尚未从本机做过变更。",
    "name": "名称",
    "version": "版本",
    "known from": "来源",
    "group": "组",
    "servers": "服务器",
    "ranks": "rank",
    "device addresses": "设备地址",
    "{files} files for {hosts} hosts; the cluster's table is {file}.": (
        "{hosts} 台主机共 {files} 个文件；全局 rank table 为 {file}。"
    ),
    "This environment needs none: its servers use no NPUs, or none that are separate.": (
        "此环境不需要 rank table：服务不使用 NPU，或未做 PD 分离。"
    ),
    "None were built yet: invoke gen-ranktable.": "尚未生成：invoke gen-ranktable。",
    "setting": "配置项",
    "value": "值",
    "default": "默认值",
    "from": "来源",
    "All settings are the defaults.": "全部配置均为默认值。",
    "load": "负载",
    "{number} at once": "并发 {number}",
    "{number} per second": "每秒 {number} 个",
    "as fast as possible": "不限速",
    "answered": "已回答",
    "requests/s": "请求/秒",
    "output tokens/s": "输出 token/秒",
    "TTFT p50 ms": "TTFT p50 毫秒",
    "TTFT p99 ms": "TTFT p99 毫秒",
    "TPOT p50 ms": "TPOT p50 毫秒",
    "TPOT p99 ms": "TPOT p99 毫秒",
    "total p50 ms": "总时延 p50 毫秒",
    "total p99 ms": "总时延 p99 毫秒",
    "picture {picture} of benchmark {name}": "性能测试 {name} 的图：{picture}",
    "No benchmark was run yet.": "尚未运行性能测试。",
    "No profile was taken yet.": "尚未做性能分析。",
    "not complete: {fault}": "不完整：{fault}",
    "workers of profile {name}": "性能分析 {name} 的各进程",
    "{role}: operators by time of their own": "{role}：按自身耗时排序的算子",
    "picture {picture} of profile {name}": "性能分析 {name} 的图：{picture}",
    "worker": "进程",
    "steps": "步数",
    "step ms": "每步毫秒",
    "communication": "通信",
    "gaps": "空隙",
    "idle between ms": "步间空闲毫秒",
    "operator": "算子",
    "calls": "调用次数",
    "self ms": "自身毫秒",
    "error": "错误",
    "count": "次数",
    "first": "首次",
    "last": "最近",
    "example": "示例",
    "cause": "原因",
    "Fetched {time}: {file}": "获取时间 {time}：{file}",
    "Not fetched from {host}: {error}": "未能从 {host} 获取：{error}",
    "and {number} more kinds": "另有 {number} 种",
    "No errors were found.": "未发现错误。",
    "No logs were fetched yet: invoke fetch-logs.": "尚未获取日志：invoke fetch-logs。",
}


class Words:
    """The words of a language: called with English, it says the same, with holes filled."""

    def __init__(self, language: str) -> None:
        self.chinese = language == "zh"

    def __call__(self, english: str, **holes: Any) -> str:
        """A form in this language. Holes for a state are filled in it too."""
        form = CHINESE[english] if self.chinese else english
        return form.format(**{k: self._hole(k, v) for k, v in holes.items()}) if holes else form

    def _hole(self, name: str, value: Any) -> Any:
        return self.known(value) if name in ("result", "state") else value

    def known(self, name: Any) -> str:
        """A name of another module's, see report_names; one that is not known stays as it is."""
        return report_names.CHINESE.get(str(name), str(name)) if self.chinese else str(name)


def words(language: str) -> Words:
    """The words of a language, en or zh."""
    return Words(language)
