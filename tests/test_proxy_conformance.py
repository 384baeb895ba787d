"""Our proxy is told what omni-infer's own launcher was recorded to be told.

The recorded words go to launch_proxy.py, and the same layout is rendered as a deployment; both
files are held against what upstream's launcher writes. What differs stands in
tests/facts/recorded/proxy-differences.yaml, each with its reason.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from recorded_servers import RECORDED, inventory, inventory_file

from omnikit.config import config
from omnikit.prepare.deployment import prepare

LAUNCHER = Path(__file__).parents[1] / "scripts" / "launch_proxy.py"
LAYOUT = inventory([["10.0.0.1"], ["10.0.0.2"]], ["10.0.0.3", "10.0.0.4"])
UPSTREAM = yaml.safe_load((RECORDED / "omni-infer-v0.5.0-nginx.yaml").read_text(encoding="utf-8"))
EXPLAINED = yaml.safe_load((RECORDED / "proxy-differences.yaml").read_text(encoding="utf-8"))
# Compared with the recorded words: test_the_words_arrive.
_OF_THE_WORDS = ("server", "load_module", "worker_cpu_affinity")
Conf = dict[str, dict[str, str]]


def recorded() -> dict[str, str]:
    """The recorded words by option."""
    text = (RECORDED / "omni-infer-v0.5.0-2p1d.json").read_text(encoding="utf-8")
    words = json.loads(text)["proxy"]["argv"]
    return dict(zip(words[::2], words[1::2]))


def launched() -> str:
    """nginx.conf as launch_proxy.py makes it of the recorded words."""
    words = [word for pair in recorded().items() for word in pair]
    argv = [sys.executable, str(LAUNCHER), "--dry-run", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def deployed(folder: Path, release: str = "v0.5.0") -> str:
    """nginx.conf of a deployment of the same layout."""
    file = inventory_file(folder, LAYOUT)
    loaded = config.load(None, [str(file)], [f"profile.omni_version={release}"], environ={})
    made = prepare(loaded, {}, {"kind": "omni-nginx"}, {}).files
    [text] = [
        text
        for files in made.values()
        for name, text in files.items()
        if name.endswith("/nginx.conf")
    ]
    return text


def made(way: str, folder: Path) -> str:
    return launched() if way == "launch_proxy.py" else deployed(folder)


def blocks(text: str) -> Conf:
    """Directives and values by place: main, events, http, server, an upstream's or location's name.

    Quotes are left out, and what may stand more than once is joined.
    """
    place, found = ["main"], {"main": {}}  # type: list[str], Conf
    text = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
    for words, end in re.findall(r"((?:'[^']*'|\"[^\"]*\"|[^;{}'\"])*)([;{}])", text):
        words = " ".join(words.replace('"', "").split())
        if end == "{":
            place.append(label(words))
            found.setdefault(place[-1], {})
        elif end == "}":
            place.pop()
        else:
            name, _, value = words.partition(" ")
            before = found[place[-1]].get(name)
            found[place[-1]][name] = f"{before}\n{value}" if before else value
    assert place == ["main"]
    return found


def label(words: str) -> str:
    """A block's name: of an upstream its own, of a location its path's."""
    kind, _, rest = words.partition(" ")
    if kind == "location":
        return "completions" if "completions" in rest else rest.split("/")[-1]
    return rest or kind


def differences(ours: Conf, upstream: Conf = UPSTREAM) -> set[tuple[str, str]]:
    """Kind, and place and directive, of whatever is not as upstream has it."""
    found = set()
    for place in {**upstream, **ours}:
        theirs, here = upstream.get(place, {}), ours.get(place, {})
        here = {name: value for name, value in here.items() if name not in _OF_THE_WORDS}
        for name in {**theirs, **here}:
            # A location has what http says where it says nothing itself.
            value = here.get(name, ours["http"].get(name) if place != "server" else None)
            kind = "missing" if value is None else "other" if name in theirs else "added"
            if value != theirs.get(name):
                found.add((kind, f"{place} {name}"))
    return found


@pytest.mark.parametrize("way", ["launch_proxy.py", "a deployment"])
def test_the_words_arrive(way: str, tmp_path: Path) -> None:
    text, words = made(way, tmp_path), recorded()
    conf = blocks(text)
    for role in ("prefill", "decode"):
        servers = conf[f"{role}_servers"]["server"].splitlines()
        assert servers == [
            f"{one} max_fails=3 fail_timeout=10s"
            for one in words[f"--{role}-servers-list"].split(",")
        ]
        assert words[f"--{role}-lb-sdk"] in conf[f"{role}_servers"]
        seqs = conf[f"{role}_servers"]["pd_score_balance_max_num_seqs"]
        assert seqs == words[f"--{role}-max-num-seqs"]
    assert conf["server"]["listen"].rpartition(":")[2] == words["--listen-port"]
    assert conf["main"]["error_log"] == f"{words['--log-file']} {words['--log-level']}"
    assert conf["main"]["worker_processes"] == words["--core-num"]
    masks = conf["main"]["worker_cpu_affinity"].split()
    cores = [len(mask) - 1 for mask in masks if mask.strip("0") == "1" and mask[0] == "1"]
    first = int(words["--start-core-index"])
    assert cores == list(range(first, first + int(words["--core-num"])))
    assert re.findall(r"/usr/local/nginx/modules/(\w+)\.so", conf["main"]["load_module"]) == [
        "ngx_http_set_request_id_module",
        "ngx_http_prefill_module",
        "ngx_http_upstream_pd_score_balance_module",
    ]


@pytest.mark.parametrize("way", ["launch_proxy.py", "a deployment"])
def test_what_differs_from_upstreams_file_is_explained(way: str, tmp_path: Path) -> None:
    found = differences(blocks(made(way, tmp_path)))
    explained = {(entry["kind"], name) for entry in EXPLAINED for name in entry["names"]}
    assert found - explained == set()
    assert explained - found == set(), "no longer different"
    assert all(len(entry["reason"]) > 20 for entry in EXPLAINED)


def told(release: str, folder: Path) -> dict[str, Any]:
    """What differs between releases."""
    conf = blocks(deployed(folder, release))
    return {
        "stream_ops": conf["completions"].get("stream_ops"),
        "limit": conf["decode_servers"].get("pd_score_balance_decode_req_limit"),
        "seqs": conf["decode_servers"].get("pd_score_balance_max_num_seqs"),
        "subrequest": conf["http"]["subrequest_output_buffer_size"],
    }


@pytest.mark.parametrize(
    ("release", "stream_ops", "limit", "seqs", "subrequest"),
    [
        ("2025-08", None, "25", None, "1m"),
        ("v0.4.1", None, "25", None, "2m"),
        ("v0.4.2", "off", "25", None, "2m"),
        ("v0.5.0", None, None, "32", "2m"),
    ],
)
def test_each_release_is_told_its_own(
    release: str, stream_ops: Any, limit: Any, seqs: Any, subrequest: str, tmp_path: Path
) -> None:
    expected = {"stream_ops": stream_ops, "limit": limit, "seqs": seqs, "subrequest": subrequest}
    assert told(release, tmp_path) == expected


def test_the_balancer_learns_from_the_servers_what_they_take(tmp_path: Path) -> None:
    file = inventory_file(tmp_path, LAYOUT)
    given = ["profile.omni_version=v0.5.0", "roles.prefill.server.args.max-num-seqs=7"]
    loaded = config.load(None, [str(file)], given, environ={})
    files = prepare(loaded, {}, {"kind": "omni-nginx"}, {}).files["p0"]
    conf = blocks(files["c0/nginx.conf"])
    assert conf["prefill_servers"]["pd_score_balance_max_num_seqs"] == "7"


def test_omni_infer_1_2_has_its_own_proxy_as_its_launcher_writes_it(tmp_path: Path) -> None:
    file = inventory_file(tmp_path, inventory([["10.0.0.1"]], ["10.0.0.3"]))
    given = ["profile.omni_version=2026-06", "profile.model=openpangu-2.0-flash"]
    loaded = config.load(None, [str(file)], given, environ={})
    conf = prepare(loaded, {}, {"kind": "omni-proxy"}, {}).files["p0"]["c0/nginx.conf"]
    for long, short in (
        ("^/prefill_sub(?<orig>/.*)$", "/prefill_sub"),
        ("location = /omni_proxy/", "location = /omni_proxy_"),
        ("location = /internal/", "location = /internal_"),
    ):
        conf = conf.replace(long, short)
    upstream, explained = (
        yaml.safe_load((RECORDED / name).read_text(encoding="utf-8"))
        for name in ("omni-infer-2026-06-nginx.yaml", "omni-proxy-differences.yaml")
    )
    expected = {(entry["kind"], name) for entry in explained for name in entry["names"]}
    assert differences(blocks(conf), upstream) == expected
    assert all(len(entry["reason"]) > 20 for entry in explained)
