"""Every name in the proxy's Lua is a local, Lua's own or nginx's, for all kinds of options.

A name that nobody defines is nil until a request comes by: nginx starts, and says nothing.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import re
from dataclasses import replace
from typing import Any, Callable, Iterator

import pytest
from needs import needs
from proxy_settings import COLOCATED, LARGE, LOCAL

from omnikit import proxy

LIBRARY = "libluajit-5.1.so.2"  # which nginx's Lua module runs on
OF_NGINX = {"ngx", "ndk"}
# What a chunk (the first argument) does with globals, as lines; what every chunk finds there.
LISTING = """
local said = {}
local function write(_, ...) for _, text in ipairs { ... } do said[#said + 1] = text end end
local out = { write = write, flush = write, close = write }
require("jit.bc").dump(assert(loadstring(...)), out, true)
return table.concat(said)
"""
THERE = """
local names = {}
for name in pairs(_G) do names[#names + 1] = name end
return table.concat(names, " ")
"""
# "0001    GGET     0   0      ; "NAME"", and before it "=>" where a jump ends.
USE = re.compile(r'^\d+\s+(?:=>\s+)?(G[GS]ET)\s.*;\s"(.*)"$', re.MULTILINE)

CHOICES: dict[str, list[Any]] = {
    "kv_params": ["nixl", "mooncake", "layerwise", "none"],
    "prefill_balance": ["least_work", "prefix", "round_robin"],
    "metrics": [True, False],
    "keys": [
        {},
        {"api_keys": ["a"]},
        {"internal_key": "a"},
        {"api_keys": ["a"], "internal_key": "a"},
    ],
    # What stands in nginx.conf alone, all of it one way and all of it the other.
    "rest": [
        {},
        {
            **{"decode_balance": "round_robin", "retries": 0, "client_half_sent": 0},
            **{"client_connections": 0, "client_requests": 0},
            "tls": {"certificate": "/a.crt", "key": "/a.key", "ca": None, "name": None},
        },
    ],
}


@pytest.fixture(scope="module")
def listing() -> Iterator[Callable[..., str]]:
    """Runs a chunk, with texts, and gives what it returns. The library that nginx itself loads."""
    needs("lua")
    lua = ctypes.CDLL(LIBRARY)
    lua.luaL_newstate.restype = ctypes.c_void_p
    lua.lua_tolstring.restype = ctypes.c_char_p
    state = ctypes.c_void_p(lua.luaL_newstate())
    lua.luaL_openlibs(state)

    def run(chunk: str, *texts: str) -> str:
        lua.lua_settop(state, 0)
        failed = lua.luaL_loadstring(state, chunk.encode())
        for text in texts:
            lua.lua_pushstring(state, text.encode())
        failed = failed or lua.lua_pcall(state, len(texts), 1, 0)
        said = lua.lua_tolstring(state, -1, None).decode()
        assert not failed, said
        return str(said)

    yield run
    lua.lua_close(state)


def chunks(files: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The scripts, and the blocks of Lua in nginx.conf, each with where it stands."""
    for name, text in files.items():
        if name.endswith(".lua"):
            yield name, text
            continue
        for found in re.finditer(r"\b(\w+_by_lua_block) \{", text):
            depth, end = 1, found.end()
            while depth:
                depth += {"{": 1, "}": -1}.get(text[end], 0)
                end += 1
            yield f"{name}, {found[1]}", text[found.end() : end - 1]


def rendered() -> set[tuple[str, str]]:
    """Every chunk that some choice of options brings about, once."""
    found: set[tuple[str, str]] = set()
    for values in itertools.product(*CHOICES.values()):
        chosen = dict(zip(CHOICES, values))
        chosen.update(chosen.pop("keys"), **chosen.pop("rest"))
        if "tls" in chosen and chosen["kv_params"] == "layerwise":
            continue  # refused
        for spec in (LOCAL, COLOCATED):
            made = replace(spec, settings={**spec.settings, **chosen})
            found.update(chunks(proxy.files(made, "a test")))
    for spec in (LOCAL, LARGE, replace(LOCAL, version="1-a")):
        found.update(chunks(proxy.files(spec, "a test")))
    return found


def unknown(listing: Callable[..., str], chunk: str) -> set[str]:
    """Globals that a chunk sets, or reads though nobody has them."""
    known = {*listing(THERE).split(), *OF_NGINX}
    uses = USE.findall(listing(LISTING, chunk))
    return {name for what, name in uses if what == "GSET" or name not in known}


@pytest.mark.parametrize(
    "wrong",
    [
        "local function f() return READ_MS + ngx.now() end return f",
        "local a = {} for i = 1, 2 do a[i] = function() count = i end end",
        "local function f() return later() end local function later() end",
        "for i = 1, 3 do if i == READ_MS then print(i) end end",
    ],
)
def test_a_name_that_nobody_defines_is_seen(listing: Callable[..., str], wrong: str) -> None:
    assert len(unknown(listing, wrong)) == 1
    assert not unknown(listing, "local X = 1 local function f() return X, ngx.var, string end")


def test_no_script_uses_a_name_that_nobody_defines(listing: Callable[..., str]) -> None:
    made = rendered()
    assert len(made) > 20 and {name for name, _ in made} >= {"pd_proxy.lua", "pd_recomputed.lua"}
    found = {(name, wrong) for name, chunk in made for wrong in unknown(listing, chunk)}
    assert not found, json.dumps(sorted(found))
