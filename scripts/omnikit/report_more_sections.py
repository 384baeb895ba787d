"""The second half of a report: history, versions, settings, measurements, errors."""

from __future__ import annotations

from typing import Any, Mapping

from omnikit.profile_summary import OPERATOR_HEAD, WORKER_HEAD
from omnikit.report_blocks import Section, Shown, cell, state
from omnikit.report_files import LATENCIES
from omnikit.report_words import Words

Data = Mapping[str, Any]


def releases(data: Data, t: Words) -> Section:
    """The deployments that ended well."""
    made = Section("releases", t("Releases"))
    if not data["releases"]:
        made.text(t("No deployment ended well yet."))
        return made
    rows = []
    for one in data["releases"]:
        changed = ", ".join(f"{what} {name}" for name, what in one["changed"].items())
        images = ", ".join(f"{name} {id_[:19]}" for name, id_ in one["images"].items())
        source = one["source"].get("revision", "")
        dirty = " (dirty)" if one["source"].get("dirty") else ""
        by = one["owner"].split(":")[0]
        rows.append(
            [one["number"], one["time"], by, images, f"{source}{dirty}", one["note"] or changed]
        )
    head = ["release", "time", "by", "image ID", "source", "what"]
    made.table(t("Releases"), [t(word) for word in head], rows, long=True)
    return made


def audit(data: Data, t: Words) -> Section:
    """Who changed the environment from this machine."""
    made = Section("audit", t("Who changed what"))
    if not data["audit"]:
        made.text(t("Nothing was changed from this machine yet."))
        return made
    rows = [
        [one["time"], one["owner"], one["what"], _ended(one["result"], t)] for one in data["audit"]
    ]
    head = ["time", "by", "what", "result"]
    made.table(t("Who changed what"), [t(word) for word in head], rows, long=True)
    return made


def _ended(result: str, t: Words) -> Shown:
    """How a command ended: ok, or "failed: why"."""
    word, colon, why = result.partition(": ")
    shown = state(word, t)
    return Shown(f"{shown}{colon}{why}", shown.kind)


def versions(data: Data, t: Words) -> Section:
    """What runs in which version."""
    made = Section("versions", t("Versions"))
    rows = [[t.known(one["name"]), one["version"], one["where"]] for one in data["versions"]]
    head = ["name", "version", "known from"]
    made.table(t("Versions"), [t(word) for word in head], rows, long=True)
    return made


def rank_tables(data: Data, t: Words) -> Section:
    """The cluster's rank table by instance."""
    made = Section("ranktables", t("Rank tables"))
    table = data["ranktable"]
    if table is None:
        made.text(
            t("This environment needs none: its servers use no NPUs, or none that are separate.")
        )
        return made
    if not table["groups"]:
        made.text(t("None were built yet: invoke gen-ranktable."))
        return made
    form = "{files} files for {hosts} hosts; the cluster's table is {file}."
    made.text(t(form, files=table["files"], hosts=table["hosts"], file=table["file"]))
    rows = [
        [one["group"], ", ".join(one["servers"]), one["devices"], one["ranks"], one["device_ips"]]
        for one in table["groups"]
    ]
    head = ["group", "servers", "devices", "ranks", "device addresses"]
    made.table(t("Rank tables"), [t(word) for word in head], rows, "2", long=True)
    return made


def settings(data: Data, t: Words) -> Section:
    """What differs from the defaults, and where it was set."""
    made = Section("settings", t("Settings that differ from the defaults"))
    if not data["settings"]:
        made.text(t("All settings are the defaults."))
        return made
    rows = [[o["name"], o["value"], o["default"], o["origin"]] for o in data["settings"]]
    head = ["setting", "value", "default", "from"]
    caption = t("Settings that differ from the defaults")
    made.table(caption, [t(word) for word in head], rows, long=True)
    return made


def benchmarks(data: Data, t: Words) -> Section:
    """Every load test that is kept, with its pictures."""
    made = Section("benchmarks", t("Benchmarks"))
    if not data["benchmarks"]:
        made.text(t("No benchmark was run yet."))
        return made
    head = ["load", "answered", "failed", "requests/s", "output tokens/s", "TTFT p50 ms"]
    head += ["TTFT p99 ms", "TPOT p50 ms", "TPOT p99 ms", "total p50 ms", "total p99 ms"]
    for one in data["benchmarks"]:
        made.heading(f"{one['name']}, {one['time']}")
        made.text(f"{one['model']} · {one['file']}")
        if one["cause"]:
            made.text(one["cause"], "bad")
        rows = []
        for run in one["runs"]:
            keys = ["completed", "failed", "requests_per_s", "output_tokens_per_s"]
            keys += [f"{m}_{p}" for m in LATENCIES for p in ("p50", "p99")]
            rows.append([_load(run, t), *(run[key] for key in keys)])
        made.table(one["name"], [t(word) for word in head], rows, "123456789a")
        for picture in one["pictures"]:
            said = t(
                "picture {picture} of benchmark {name}", picture=picture["name"], name=one["name"]
            )
            made.picture(said, picture["data"])
    return made


def _load(run: Mapping[str, Any], t: Words) -> str:
    if run["concurrency"] is not None:
        return t("{number} at once", number=run["concurrency"])
    if run["rate"] in (None, "inf"):
        return t("as fast as possible")
    return t("{number} per second", number=cell(run["rate"]))


def profiles(data: Data, t: Words) -> Section:
    """The last profiles: what workers did with their time, and the first operators of each role."""
    made = Section("profiles", t("Profiles"))
    if not data["profiles"]:
        made.text(t("No profile was taken yet."))
    for one in data["profiles"]:
        made.heading(one["name"])
        made.text(f"{one['began']} · {one['file']}")
        for fault in one["faults"]:
            made.text(t("not complete: {fault}", fault=fault), "bad")
        for note in one["notes"]:
            made.text(note)
        head = [t(word) for word in WORKER_HEAD]
        made.table(t("workers of profile {name}", name=one["name"]), head, one["workers"], "23456")
        for role, rows in one["roles"].items():
            caption = t("{role}: operators by time of their own", role=role)
            head = [t(word) for word in OPERATOR_HEAD]
            if rows:
                made.table(caption, head, rows, "123", long=True, named=True)
        for picture in one["pictures"]:
            said = t(
                "picture {picture} of profile {name}", picture=picture["name"], name=one["name"]
            )
            made.picture(said, picture["data"])
    return made


def log_errors(data: Data, t: Words) -> Section:
    """What the logs that were fetched last complain about."""
    made = Section("errors", t("Errors in logs"))
    logs = data["logs"]
    if logs is None:
        made.text(t("No logs were fetched yet: invoke fetch-logs."))
        return made
    made.text(t("Fetched {time}: {file}", time=logs["fetched_at"], file=logs["file"]))
    for host, error in logs["not_fetched"].items():
        made.text(t("Not fetched from {host}: {error}", host=host, error=error), "bad")
    if not logs["kinds"]:
        made.text(t("No errors were found."))
        return made
    rows = []
    for one in logs["kinds"]:
        example = one["example"]
        said = f"{example['file']}:{example['line']}: {example['text'].strip()[:200]}"
        hosts = ", ".join(dict.fromkeys(one["hosts"]))
        row = [one["kind"], one["count"], hosts, one["first"], one["last"]]
        rows.append([*row, said, one["cause"], one["remedy"]])
    head = ["error", "count", "hosts", "first", "last", "example", "cause", "what to do"]
    made.table(t("Errors in logs"), [t(word) for word in head], rows, "1", long=True)
    if logs["more"]:
        made.text(t("and {number} more kinds", number=logs["more"]))
    return made
