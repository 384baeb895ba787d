"""A report's data as one HTML page that needs nothing else: no network, no script, no font."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

from hostkit.base.errors import ActionError
from hostkit.checks.base import FAILED, OK, WARNING
from hostkit.files import regular
from omnikit.deploy.plan_report import ranges
from omnikit.deploy.status import NOT_DEPLOYED, span
from omnikit.fleet.render import TEMPLATES
from omnikit.profile.summary import OPERATOR_HEAD, WORKER_HEAD
from omnikit.report import drawings
from omnikit.report import words as report_notes
from omnikit.report.data import LATENCIES
from omnikit.report.drawings import CROSS, member, members, ports
from omnikit.report.words import Words
from omnikit.timeline.summary import GOOD

# What a report's sections are made of: plain data that the template lays out.

Block = Mapping[str, Any]
_COLUMNS = 5  # that a phone has room for
NONE = "–"  # a cell without a value
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff]"
)
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ][\d:]+")


class Shown(str):
    """A state in the reader's language, with the CSS class of its raw word."""

    kind: str

    def __new__(cls, shown: str, kind: str) -> Shown:
        """shown: as the reader sees it."""
        made = super().__new__(cls, shown)
        made.kind = kind
        return made


def state_word(raw: str, t: Words) -> Shown:
    """A state's cell."""
    return Shown(t.known(raw), mood(raw))


class Section:
    """A heading and what stands below it. key: its address in the page."""

    def __init__(self, key: str, title: str, t: Words) -> None:
        self.key, self.title, self.t = key, t(title), t
        self.caption = self.title  # of tables: the last heading
        self.blocks: list[Block] = []

    def say(self, form: str, kind: str = "", **holes: Any) -> Section:
        """A paragraph in the reader's language."""
        return self.text(self.t(form, **holes), kind)

    def text(self, text: str, kind: str = "") -> Section:
        """A paragraph as it is."""
        self.blocks.append({"kind": "text", "text": text, "style": kind})
        return self

    def heading(self, text: str) -> None:
        """A heading below the section's own, as it is."""
        self.caption = text
        self.blocks.append({"kind": "heading", "text": text})

    def facts(self, facts: Sequence[tuple[str, str]]) -> None:
        """Names and values."""
        self.blocks.append({"kind": "facts", "facts": facts})

    def table(
        self,
        head: Sequence[str],
        rows: Sequence[Sequence[Any]],
        numbers: str = "",
        *,
        long: bool = False,
        caption: str = "",
        named: bool = False,
    ) -> None:
        """A table; the first cell of a row is its heading. head: in English. numbers: the columns
        of numbers, each as a digit. long: its cells are. caption: other than the last heading.
        named: it is shown, not only read aloud.

        On a phone the cells of wide and long tables stand below each other, each with its name.
        """
        shown = [[cell(value) for value in row] for row in rows]
        right = {int(digit, 36) for digit in numbers}
        wide = len(head) > _COLUMNS
        style = ("long wide" if wide else "long") if long else "wide" if wide else "plain"
        about = {"caption": caption or self.caption, "style": style, "named": named}
        about["head"] = [self.t(word) for word in head]
        self.blocks.append({"kind": "table", **about, "rows": shown, "right": right})

    def fold(self, summary: str) -> None:
        """Have the last block shown when its summary is opened."""
        last = self.blocks.pop()
        self.blocks.append({"kind": "folded", "summary": summary, "blocks": [last]})

    def drawing(
        self, kind: str, drawing: Mapping[str, Any], legend: Sequence[tuple[str, str]]
    ) -> None:
        """One of drawings, topology or gantt, with the meaning of its colours."""
        self.blocks.append({"kind": kind, "drawing": drawing, "legend": legend})

    def picture(self, words: str, data: str) -> None:
        """A picture from a data: address."""
        self.blocks.append({"kind": "picture", "words": words, "data": data})


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if value in (None, "", "-"):
        return NONE
    if isinstance(value, Shown):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return NONE
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
    return str(value)


def printable(value: Any) -> Any:
    """Data in which no text has characters that a page cannot hold, or that turn its words round.

    Control characters, halves of surrogate pairs and marks of direction become U+FFFD.
    """
    if isinstance(value, dict):
        return {printable(key): printable(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [printable(child) for child in value]
    return _UNPRINTABLE.sub("\ufffd", value) if isinstance(value, str) else value


def mood(text: str) -> str:
    """The CSS class of a word that tells a state, or of a time, "" for any other text."""
    if isinstance(text, Shown):
        return text.kind
    if text in ("ready", "ok", "serves"):
        return "good"
    if text in ("failed", "unreachable", "stopped", "does not serve"):
        return "bad"
    if text in ("warning", "unknown", "starting", "cut off"):
        return "warn"
    if text == NONE:
        return "none"
    return "time" if _TIME.match(text) else ""


# A report's sections: from its data (see data.collect) to headings, words, tables and drawings.

Data = Mapping[str, Any]
_PATH = 60  # stretches of the critical path


def overview(data: Data, t: Words) -> Section:
    """The state in a few lines."""
    made = Section("overview", "Overview", t)
    plan, status, timeline = data["plan"], data["status"], data["timeline"]
    state = Shown(t("not known"), "warn")
    if status is not None and not status["asked"]:
        state = Shown(t.known(NOT_DEPLOYED), "soft")
    elif status is not None:
        state = Shown(t("serves"), "good") if status["ok"] else Shown(t("does not serve"), "bad")
    nodes = plan["nodes"]
    instances: dict[str, set[int]] = {}
    for node in nodes:
        instances.setdefault(node["role"], set()).add(node["instance"])
    devices = sum(len(node["devices"]) for node in nodes)
    facts = [
        (t("state"), state),
        (t("entry"), plan["entry"]),
        (t("model"), plan["model_path"]),
        (t("served as"), plan["served_name"]),
        (t("engine"), plan["engine"]),
        (t("runtime"), plan["runtime"]),
        (t("hosts"), str(len(plan["hosts"]))),
        (t("instances"), ", ".join(f"{len(own)} {t(role)}" for role, own in instances.items())),
        (t("devices"), str(devices) if devices else t("no devices")),
    ]
    if timeline:
        shown = f"{timeline['began']}, {timeline['seconds']:.1f} s, {t.known(timeline['result'])}"
        facts.append((t("last deployment"), shown))
    if data["releases"]:
        last = data["releases"][0]
        facts.append((t("present release"), f"{last['number']}, {last['time']}"))
    made.facts(facts)
    return made


def topology(data: Data, t: Words) -> Section:
    """The drawing."""
    made = Section("topology", "Topology", t)
    status, plan = data["status"], data["plan"]
    asked = status is not None and status["asked"]
    states = {n["node"]: n["state"] for n in (status["nodes"] if asked else ())}
    for name, (head, _, _) in members(plan["nodes"]).items():
        if head in states:
            states.setdefault(name, states[head])  # its servers are its head's
    flows = [("asks", t("requests")), ("kv", t("KV transfer"))] if plan["proxy"] else []
    made.drawing("topology", drawings.topology(plan, states, t), flows)
    return made


def state(data: Data, t: Words) -> Section:
    """Every server as it was when it was asked; those of one node together, where it has many."""
    made = Section("state", "State", t)
    status = data["status"]
    if status is None:
        return made.say("The state was not to be had.")
    if not status["asked"]:
        return made.say("Nothing was deployed from this machine; no host was asked for its state.")
    if any(len(node["servers"]) > 1 for node in status["nodes"]):
        _grouped(made, status["nodes"], t)
    else:
        _servers(made, status["nodes"], t)
    done = status["completion"]
    if done is not None:
        form = "One completion was answered: {found}" if done["passed"] else ""
        made.say(form or "The completion failed: {found}", found=done["found"])
    return made


def _grouped(made: Section, nodes: Sequence[Data], t: Words) -> None:
    """A row for each node, then the servers that are in another state; all when it is opened."""
    rows = []
    for node in nodes:
        servers = node["servers"]
        ready = sum(server["state"] == "ready" for server in servers)
        kv = [s["kv_usage"] for s in servers if s.get("kv_usage") is not None]
        about = [node["node"], t(node["role"]), node["host"], state_word(node["state"], t)]
        share = f"{ready}/{len(servers)}" if servers else None
        sums = [_sum(servers, key) for key in ("running", "waiting")]
        rows.append([*about, share, *sums, _percent(max(kv, default=None))])
    head = ["node", "role", "host", "state", "servers ready", "running", "waiting", "most KV use"]
    made.table(head, rows, "4567")
    bad = [{**node, "servers": _apart(node)} for node in nodes if _apart(node)]
    if bad:
        made.heading(t("Servers that are not ready"))
        _servers(made, bad, t)
    _servers(made, nodes, t, t("All servers"))
    count = sum(len(node["servers"]) for node in nodes)
    made.fold(t("All servers ({number})", number=count))


def _apart(node: Data) -> list[Data]:
    """The servers that are not ready, unless all are as the row of their node says."""
    servers = node["servers"]
    if all(server["state"] == node["state"] for server in servers):
        return []
    return [server for server in servers if server["state"] != "ready"]


def _sum(servers: Sequence[Data], key: str) -> Optional[float]:
    found = [server[key] for server in servers if server.get(key) is not None]
    return sum(found) if found else None


def _percent(value: Optional[float]) -> Optional[str]:
    return None if value is None else f"{value:.1%}"


def _servers(made: Section, nodes: Sequence[Data], t: Words, caption: str = "") -> None:
    rows = []
    for node in nodes:
        for server in node["servers"] or [{"name": node["node"], "state": node["state"]}]:
            about = [server["name"], t(node["role"]), node["host"], server.get("port")]
            about += [state_word(server["state"], t), span(server.get("uptime_s"))]
            about += [server.get("running"), server.get("waiting")]
            rows.append([*about, _percent(server.get("kv_usage"))])
    head = ["name", "role", "host", "port", "state", "uptime", "running", "waiting", "KV use"]
    made.table(head, rows, "3678", caption=caption)


def instances(data: Data, t: Words) -> Section:
    """The plan as a table: all that the drawing shows."""
    made = Section("instances", "Instances", t)
    plan = data["plan"]
    own = members(plan["nodes"])
    rows = [
        [
            *(node["name"], member(own[node["name"]], t), t(node["role"])),
            *(node["host"], node["address"], ranges(node["devices"])),
            *(ports(node["servers"], "api_port"), ports(node["servers"], "kv_port")),
            *(node["kv_rank"], node["tensor_parallel"], node["dp_size"]),
            *(ranges([server["dp_rank"] for server in node["servers"]]), node["container"]),
        ]
        for node in plan["nodes"]
    ]
    proxy = plan["proxy"]
    if proxy:
        place = [proxy["name"], "", t("proxy"), proxy["host"], proxy["address"], "", proxy["port"]]
        rows.append([*place, "", "", "", "", "", proxy["container"]])
    head = ["node", "instance", "role", "host", "address", "devices", "API ports", "KV ports"]
    made.table([*head, "kv_rank", "tp", "dp", "dp ranks", "container"], rows, "89a")
    return made


def checks(data: Data, t: Words) -> Section:
    """What check-env found, in numbers by host, and all that is not ok in full."""
    made = Section("checks", "Host checks", t)
    if not data["checks"]:
        return made.say("No host was checked yet: invoke check-env, or this report with --check.")
    rows = []
    groups: dict[tuple[str, ...], list[str]] = {}
    for host, own in data["checks"].items():
        states = [one["state"] for one in own["checks"]]
        counts = [states.count(OK), states.count(WARNING), states.count(FAILED)]
        rest = len(states) - sum(counts)
        verdict = FAILED if counts[2] else WARNING if counts[1] else OK
        rows.append([host, state_word(verdict, t), *counts, rest, own["time"]])
        for one in own["checks"]:
            if one["state"] != OK:
                key = tuple(str(one[k]) for k in ("title", "state", "found", "needed", "todo"))
                groups.setdefault(key, []).append(host)
    head = ["host", "state", "ok", "warnings", "failed", "not known", "checked at"]
    made.table(head, rows, "2345")
    if groups:
        made.heading(t("What is not ok"))
        ordered = sorted(groups.items(), key=lambda one: one[0][1] != FAILED)
        rows = [[t.known(k[0]), state_word(k[1], t), ", ".join(on), *k[2:]] for k, on in ordered]
        made.table(["check", "state", "hosts", "found", "needed", "what to do"], rows, long=True)
    return made


def timeline(data: Data, t: Words) -> Section:
    """Where the time of the last deployment went."""
    made = Section("timeline", "Deploy timeline", t)
    found = data["timeline"]
    if not found:
        return made.say("No deployment was recorded here.")
    about = {key: found[key] for key in ("command", "began", "result")}
    about.update(owner=found["owner"].split(":")[0], seconds=f"{found['seconds']:.1f}")
    made.say("{command}, {began}, by {owner}: {seconds} s, {result}", **about)
    for line in (found["error"] or "").splitlines():  # it may have the tail of a log
        made.text(line, "bad")
    if not found["spans"]:
        return made
    waited, share = f"{found['waiting_for_engines_s']:.1f}", f"{found['waiting_for_engines']:.0%}"
    made.say("Waiting for engines: {seconds} s ({share}).", seconds=waited, share=share)
    made.drawing("gantt", drawings.gantt(found, t), drawings.legend(found, t))
    total = found["seconds"] or 1.0
    made.heading(t("Steps"))
    rows = []
    for one in found["steps"]:
        seconds = one["seconds"]
        row = [one["step"], f"{seconds:.1f}", f"{seconds / total:.0%}", one["hosts"]]
        rows.append([*row, one["slowest"], _result(one["result"], t)])
    made.table(["step", "seconds", "share", "hosts", "slowest host", "result"], rows, "123")
    made.heading(t("Hosts"))
    rows = []
    for name, one in found["hosts"].items():
        times = [f"{one[key]:.1f}" for key in ("seconds", "waiting_for_engines_s")]
        rows.append([name, *times, _result(one["result"], t)])
    bad = any(one["result"] != GOOD for one in found["hosts"].values())
    made.table(["host", "seconds", "waiting for engines, s", "result"], rows, "12", long=bad)
    made.heading(t("Critical path: what the end waited for"))
    rows = []
    for one in found["critical_path"][:_PATH]:
        step = one["step"] if one["host"] else t("between steps")
        rows.append([f"{one['at']:.1f}", f"{one['seconds']:.1f}", one["host"], step])
    made.table(["at second", "seconds", "host", "step"], rows, "01")
    return made


def _result(raw: str, t: Words) -> Shown:
    """How a step or host ended: GOOD, or "failed on p5; unreachable: p3" (see timeline.where)."""
    if raw == GOOD:
        return state_word(raw, t)
    if not t.chinese:
        return Shown(raw, "bad")
    parts = [re.match(r"(.+?)(?: on |: )(.+)", part) for part in raw.split("; ")]
    told = [f"{t.known(part[1])}：{part[2]}" if part else raw for part in parts]
    return Shown("；".join(told), "bad")


def releases(data: Data, t: Words) -> Section:
    """The deployments that ended well."""
    made = Section("releases", "Releases", t)
    if not data["releases"]:
        return made.say("No deployment ended well yet.")
    rows = []
    for one in data["releases"]:
        changed = ", ".join(f"{what} {name}" for name, what in one["changed"].items())
        images = ", ".join(f"{name} {id_[:19]}" for name, id_ in one["images"].items())
        dirty = " (dirty)" if one["source"].get("dirty") else ""
        source = f"{one['source'].get('revision', '')}{dirty}"
        about = [one["number"], one["time"], one["owner"].split(":")[0], images, source]
        rows.append([*about, one["note"] or changed])
    made.table(["release", "time", "by", "image ID", "source", "what"], rows, long=True)
    return made


def audit(data: Data, t: Words) -> Section:
    """Who changed the environment from this machine."""
    made = Section("audit", "Who changed what", t)
    if not data["audit"]:
        return made.say("Nothing was changed from this machine yet.")
    rows = []
    for one in data["audit"]:
        word, colon, why = one["result"].partition(": ")  # ok, or "failed: why"
        shown = state_word(word, t)
        ended = Shown(f"{shown}{colon}{why}", shown.kind)
        rows.append([one["time"], one["owner"], one["what"], ended])
    made.table(["time", "by", "what", "result"], rows, long=True)
    return made


def versions(data: Data, t: Words) -> Section:
    """What runs in which version."""
    made = Section("versions", "Versions", t)
    rows = [[t.known(one["name"]), one["version"], one["where"]] for one in data["versions"]]
    made.table(["name", "version", "known from"], rows, long=True)
    return made


def rank_tables(data: Data, t: Words) -> Section:
    """The cluster's rank table by instance."""
    made = Section("ranktables", "Rank tables", t)
    found = data["ranktable"]
    if found is None:
        return made.say(
            "This environment needs none: its servers use no NPUs, or none that are separate."
        )
    if not found["groups"]:
        return made.say("None were built yet: invoke build-ranktables.")
    form = "{files} files for {hosts} hosts; the cluster's table is {file}."
    made.say(form, files=found["files"], hosts=found["hosts"], file=found["file"])
    rows = [
        [one["group"], ", ".join(one["servers"]), one["devices"], one["ranks"], one["device_ips"]]
        for one in found["groups"]
    ]
    made.table(["group", "servers", "devices", "ranks", "device addresses"], rows, "2", long=True)
    return made


def settings(data: Data, t: Words) -> Section:
    """What differs from the defaults, and where it was set."""
    made = Section("settings", "Settings that differ from the defaults", t)
    if not data["settings"]:
        return made.say("All settings are the defaults.")
    rows = [[o["name"], o["value"], o["default"], o["origin"]] for o in data["settings"]]
    made.table(["setting", "value", "default", "from"], rows, long=True)
    return made


def benchmarks(data: Data, t: Words) -> Section:
    """Every load test that is kept, with its pictures."""
    made = Section("benchmarks", "Benchmarks", t)
    if not data["benchmarks"]:
        return made.say("No benchmark was run yet.")
    head = ["load", "answered", "failed", "requests/s", "output tokens/s", "TTFT p50 ms"]
    head += ["TTFT p99 ms", "TPOT p50 ms", "TPOT p99 ms", "total p50 ms", "total p99 ms"]
    keys = ["completed", "failed", "requests_per_s", "output_tokens_per_s"]
    keys += [f"{metric}_{which}" for metric in LATENCIES for which in ("p50", "p99")]
    for one in data["benchmarks"]:
        made.heading(f"{one['name']}, {one['time']}")
        made.text(f"{one['model']} · {one['file']}")
        if one["cause"]:
            made.text(one["cause"], "bad")
        rows = [[_load(run, t), *(run[key] for key in keys)] for run in one["runs"]]
        made.table(head, rows, "123456789a", caption=one["name"])
        _pictures(made, "picture {picture} of benchmark {name}", one, t)
    return made


def _pictures(made: Section, form: str, one: Data, t: Words) -> None:
    for picture in one["pictures"]:
        made.picture(t(form, picture=picture["name"], name=one["name"]), picture["data"])


def _load(run: Data, t: Words) -> str:
    if run["concurrency"] is not None:
        return t("{number} at once", number=run["concurrency"])
    if run["rate"] in (None, "inf"):
        return t("as fast as possible")
    return t("{number} per second", number=cell(run["rate"]))


def profiles(data: Data, t: Words) -> Section:
    """The last profiles: what workers did with their time, and the first operators of each role."""
    made = Section("profiles", "Profiles", t)
    if not data["profiles"]:
        return made.say("No profile was taken yet.")
    for one in data["profiles"]:
        made.heading(one["name"])
        made.text(f"{one['began']} · {one['file']}")
        for fault in one["faults"]:
            made.say("not complete: {fault}", "bad", fault=fault)
        for note in one["notes"]:
            made.text(note)
        caption = t("workers of profile {name}", name=one["name"])
        made.table(WORKER_HEAD, one["workers"], "23456", caption=caption)
        for role, rows in one["roles"].items():
            caption = t("{role}: operators by time of their own", role=role)
            if rows:
                made.table(OPERATOR_HEAD, rows, "123", long=True, caption=caption, named=True)
        _pictures(made, "picture {picture} of profile {name}", one, t)
    return made


def log_errors(data: Data, t: Words) -> Section:
    """What the logs that were fetched last complain about."""
    made = Section("errors", "Errors in logs", t)
    logs = data["logs"]
    if logs is None:
        return made.say("No logs were fetched yet: invoke fetch-logs.")
    made.say("Fetched {time}: {file}", time=logs["fetched_at"], file=logs["file"])
    for host, error in logs["not_fetched"].items():
        made.say("Not fetched from {host}: {error}", "bad", host=host, error=error)
    if not logs["kinds"]:
        return made.say("No errors were found.")
    rows = []
    for one in logs["kinds"]:
        example = one["example"]
        said = f"{example['file']}:{example['line']}: {example['text'].strip()[:200]}"
        hosts = ", ".join(dict.fromkeys(one["hosts"]))
        row = [one["kind"], one["count"], hosts, one["first"], one["last"]]
        rows.append([*row, said, one["cause"], one["remedy"]])
    head = ["error", "count", "hosts", "first", "last", "example", "cause", "what to do"]
    made.table(head, rows, "1", long=True)
    if logs["more"]:
        made.say("and {number} more kinds", number=logs["more"])
    return made


ALL = (
    *(overview, topology, state, instances, checks, timeline, releases, audit),
    *(versions, rank_tables, settings, benchmarks, profiles, log_errors),
)


def page(data: Mapping[str, Any], language: str = "en") -> str:
    """The page. data: see data.collect. Every value is escaped."""
    import jinja2
    from markupsafe import Markup

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
    )
    made.filters["mood"] = mood
    t = Words(language)
    clean = printable(_named(data, t))
    notes = [report_notes.said(note, t) for note in clean["notes"]]
    return made.get_template("environment_report.html.j2").render(
        language="zh-Hans" if language == "zh" else "en",
        t=t,
        cross=CROSS,
        data=clean,
        notes=notes,
        sections=[section(clean, t) for section in ALL],
        style=Markup((TEMPLATES / "environment_report.css").read_text(encoding="utf-8")),
    )


def _named(data: Mapping[str, Any], t: Words) -> dict[str, Any]:
    """The data with the names of steps in the reader's language."""
    found = data["timeline"]
    if not found:
        return dict(data)
    named = {
        key: [{**one, "step": t.known(one["step"])} for one in found[key]]
        for key in ("steps", "spans", "critical_path")
    }
    return {**data, "timeline": {**found, **named}}


def write(path: Path, text: str) -> None:
    """Write a page whole, for its owner alone. Raises ActionError."""
    try:
        regular.write(path, text)
    except OSError as error:
        raise ActionError(
            f"the report cannot be written: {error.strerror}.",
            where=str(path),
            todo="choose another place: --out FILE",
        ) from error
