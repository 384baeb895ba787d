-- generated from local
-- The servers behind the proxy: which one is asked next, which one is out because it is sick, how
-- many requests each has now. What workers share, and a reload keeps, is in shared memory; the list
-- itself is read from the upstreams of nginx.conf beside this file, so that who takes a server out
-- there (a roll) takes it out here.

local http = require "pd_http"
local state = ngx.shared.pd_state

local MAX_FAILS = 3
local FAIL_TIMEOUT_S = 10
local PROBE_S = 500 / 1000  -- between two probes; twice that for the answer to one
local SILENCE_S = 10
local HOLD_S = 1  -- a server is out for; twice that the next time, at most FAIL_TIMEOUT_S
local MEMORY_S = 10 * FAIL_TIMEOUT_S  -- a server that was in for so long is as good as any
local REAL_MS = 10000  -- within which a server that was sick answers a real request
local LARGEST_REAL = 1024 * 1024  -- of that answer
local LEAST_CONN = { prefill = true, decode = true, }

local servers = {}

-- The address of a name is asked for once, as nginx does it: at the start and at a reload. Of several
-- the first of IPv4.
local function resolved(host)
    if host:find "^%d+%.%d+%.%d+%.%d+$" or host:find("[", 1, true) then
        return host
    end
    local asked = io.popen("getent ahosts " .. host)
    local told = asked and asked:read("*a") or ""
    if asked then
        asked:close()
    end
    local first = told:match "^(%S+)"
    return told:match "%f[%S](%d+%.%d+%.%d+%.%d+) " or first and "[" .. first .. "]" or host
end

-- The servers of a role ("prefill" or "decode"), read from the text of nginx.conf.
function servers.read(text)
    servers.of = {}
    for role, block in text:gmatch "\n    upstream (%l+)_servers {\n(.-)\n    }" do
        local list = {}
        for host, port, rest in block:gmatch "\n? +server (%S+):(%d+)([^\n]*)" do
            list[#list + 1] = {
                name = host .. ":" .. port, host = resolved(host), port = tonumber(port),
                version = rest:match "# version (%S+)" or "",
            }
        end
        servers.of[role] = list
    end
    -- Workers that only end what they began have an older list: they look up here what still holds.
    for key in (state:get "listed" or ""):gmatch "[^\n]+" do
        state:delete(key)
    end
    local listed, words = {}, {}
    for role, list in pairs(servers.of) do
        for _, server in ipairs(list) do
            local key = "version " .. role .. " " .. server.name
            listed[#listed + 1] = key
            state:set(key, server.version)
            words[server.version] = true
        end
    end
    state:set("listed", table.concat(listed, "\n"))
    local one = next(words)
    servers.of_one_version = not one or next(words, one) == nil
end

-- The version of a server; nil when it was taken out.
local function version_of(role, server)
    if ngx.worker.exiting() then
        return state:get("version " .. role .. " " .. server.name)
    end
    return server.version
end

-- How well a version is served by a role: 2, there is a server in the pool; 1, all are out; 0, none.
local function served(role, version)
    local best = 0
    for _, server in ipairs(servers.of[role] or {}) do
        if version_of(role, server) == version then
            if not state:get("out " .. server.name) then
                return 2
            end
            best = 1
        end
    end
    return best
end

local turn = {}

-- The server to ask next, or nil when all were tried: of those in the pool the one with the fewest
-- requests, or the next in turn. When all are out, one of them: it may be back. version: its version,
-- nil for any; partner: the role of which it needs a server of the same version.
function servers.pick(role, tried, version, partner)
    local list = servers.of[role] or {}
    local first = turn[role] or ngx.worker.id() or 0
    local some_rest = state:get("resting " .. role)
    local best, best_at, best_load, best_rests
    local mixed = not servers.of_one_version or ngx.worker.exiting()
    local known = {}  -- version -> how well the partner serves it
    for i = 0, #list - 1 do
        local at = (first + i) % #list + 1
        local server = list[at]
        local usable = not tried[server.name]
        local alone = false
        if usable and mixed then
            local its = version_of(role, server)
            usable = its and (not version or its == version)
            if usable and partner then
                known[its] = known[its] or served(partner, its)
                usable, alone = known[its] > 0, known[its] == 1
            end
        end
        if usable then
            local rests = alone or some_rest and state:get("out " .. server.name) ~= nil
            local load = LEAST_CONN[role] and (state:get(role .. " " .. server.name) or 0) or 0
            if not best or (best_rests and not rests) or (best_rests == rests and load < best_load) then
                best, best_at, best_load, best_rests = server, at, load, rests
            end
        end
    end
    if best then
        turn[role] = best_at
        state:incr(role .. " " .. best.name, 1, 0)
    end
    return best
end

-- A request that was picked for a server is no longer with it.
function servers.release(role, name)
    state:incr(role .. " " .. name, -1, 1)
end

-- A server leaves the pool. It comes back after a while, see HOLD_S, and with a real answer.
function servers.eject(role, name, why)
    local key = "out " .. name
    if state:add(key, ngx.now() + HOLD_S) then
        local times = state:get("outs " .. name) or 0
        state:set("outs " .. name, times + 1, MEMORY_S)
        state:set(key, ngx.now() + math.min(FAIL_TIMEOUT_S, HOLD_S * 2 ^ times))
        ngx.log(ngx.WARN, role, " server ", name, " leaves the pool: ", why)
    end
    state:set("resting " .. role, true, 4 * PROBE_S + 2)
end

-- A request failed at a server in a way that may be the request's fault: some in a row are not.
function servers.fault(role, name, why)
    if MAX_FAILS > 0 then
        local fails = state:incr("fails " .. name, 1, 0, FAIL_TIMEOUT_S)
        if fails and fails >= MAX_FAILS then
            servers.eject(role, name, why)
        end
    end
end

function servers.success(name)
    if state:get("fails " .. name) then
        state:delete("fails " .. name)
    end
end

local PROBE = "GET /health HTTP/1.1\r\nHost: omnikit\r\nConnection: close\r\n\r\n"
local REAL_BODY = '{"prompt":"a","max_tokens":1,"temperature":0}'
local REAL = "POST /v1/completions HTTP/1.1\r\nHost: omnikit\r\nConnection: close\r\nX-Request-Id: omnikit-probe"
    .. "\r\nContent-Type: application/json\r\nContent-Length: " .. #REAL_BODY .. "\r\n\r\n" .. REAL_BODY

-- Whether a server says that it is well; otherwise false and why.
function servers.says_well(server)
    local status, why = http.ask(server, PROBE, 2 * PROBE_S * 1000, LARGEST_REAL)
    return status == 200, status and "/health answers with " .. status or why
end

-- Whether a server that just broke a request off is sick itself; it then leaves the pool. Asked twice,
-- since one that is being killed may take a connection a moment longer.
function servers.is_sick(role, server)
    if state:get("out " .. server.name) then
        return true
    end
    local well, why = servers.says_well(server)
    if well then
        ngx.sleep(0.1)
        well, why = servers.says_well(server)
    end
    if not well then
        servers.eject(role, server.name, why)
    end
    return not well
end

-- A refusal of a model or a path is a real answer too: what is asked need not fit every model.
local function answers_really(server)
    local status, text = http.ask(server, REAL, REAL_MS, LARGEST_REAL)
    if status and status < 500 and text:find "^%s*{.*}%s*$" then
        return true
    end
    return false, status and "a real request is answered with " .. status .. " or nonsense" or text
end

local function look(role, server)
    local name = server.name
    local well, why = servers.says_well(server)
    if not well then
        if why == "timeout" then
            state:add("silent since " .. name, ngx.now())
            if ngx.now() - (state:get("silent since " .. name) or 0) >= SILENCE_S then
                state:set("silent " .. name, "long", 4 * PROBE_S + 2)
            end
        end
        return servers.eject(role, name, "its /health: " .. why)
    end
    state:delete("silent since " .. name)
    state:delete("silent " .. name)
    local back = state:get("out " .. name)
    if not back then
        return
    end
    state:set("resting " .. role, true, REAL_MS / 1000 + 2)
    if ngx.now() < back then
        return
    end
    well, why = answers_really(server)
    state:delete("out " .. name)
    state:delete("fails " .. name)
    if well then
        ngx.log(ngx.WARN, role, " server ", name, " is back in the pool")
    else
        servers.eject(role, name, why)
    end
end

-- Workers share the servers among them, each asks its own all the time.
function servers.watch()
    local busy = {}
    local function one(role, server)
        busy[server.name] = true
        local good, why = pcall(look, role, server)
        busy[server.name] = nil
        if not good then
            ngx.log(ngx.ERR, why)
        end
    end
    local function all(premature)
        local number = 0
        for _, role in ipairs { "prefill", "decode" } do
            for _, server in ipairs(servers.of[role] or {}) do
                if not premature and number % ngx.worker.count() == ngx.worker.id() and not busy[server.name] then
                    ngx.thread.spawn(one, role, server)
                end
                number = number + 1
            end
        end
    end
    local good, why = ngx.timer.every(PROBE_S, all)
    if not good then
        ngx.log(ngx.ERR, "no server is watched: ", why)
    end
end

return servers
