-- generated from local
-- The servers behind the proxy: which one is asked next, which one is out because it is sick, how
-- many requests each has now. What workers share, and a reload keeps, is in shared memory; the list
-- itself is read from the upstreams of nginx.conf beside this file, so that who takes a server out
-- there (a roll) takes it out here.

local http = require "pd_http"
local state = ngx.shared.pd_state

local MAX_FAILS = 3
local FAIL_TIMEOUT_S = 10
local PROBE_S, PROBE_MS = 500 / 1000, 1000  -- between two probes, for an answer
local FRESH_S = 4 * PROBE_S + PROBE_MS / 1000 + 2  -- what was found so long ago is not forgotten yet
local SILENCE_S = 10
local STALL_S, STEPS = 300, "vllm:iteration_tokens_total_count"  -- 0: nobody looks
local HOLD_S = 1  -- a server is out for; twice that the next time, at most FAIL_TIMEOUT_S
local MEMORY_S = 10 * FAIL_TIMEOUT_S  -- a server that was in for so long is as good as any
local REAL_MS = 10000  -- within which a server that was sick answers a real request
local LARGEST_ANSWER = 1024 * 1024  -- of a probe
local KV_EXPIRED, KV_LATE, RUNNING = "vllm:nixl_num_kv_expired_reqs_total", "vllm:nixl_num_notifications_after_expiry_total", "vllm:num_requests_running"
local KV_LOOK_S = 5  -- between two looks at them
local STALL_LOOKS = 5  -- within STALL_S
local COUNTED = { prefill = true, decode = true, }
local LEAST_WORK = { prefill = true, decode = true, }
local FIXED_WORK = { prefill = 512, decode = 16384 }  -- of a request, in bytes of its text

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

local told  -- the list as text, as the workers tell each other

local function count_versions()
    local words = {}
    for _, list in pairs(servers.of) do
        for _, server in ipairs(list) do
            words[server.version] = true
        end
    end
    local one = next(words)
    servers.of_one_version = not one or next(words, one) == nil
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
    local lines = {}
    for role, list in pairs(servers.of) do
        for _, server in ipairs(list) do
            lines[#lines + 1] = table.concat({ role, server.name, server.host, server.port, server.version }, " ")
        end
    end
    told = table.concat(lines, "\n")
    state:set("pool", told)
    count_versions()
end

-- Workers that only end what they began go by today's list too.
local function renew()
    local text = state:get "pool"
    if not text or text == told then
        return
    end
    told = text
    for _, list in pairs(servers.of) do
        for i = #list, 1, -1 do
            list[i] = nil
        end
    end
    for role, name, host, port, version in text:gmatch "(%S+) (%S+) (%S+) (%S+) ([^\n]*)" do
        local list = servers.of[role] or {}
        list[#list + 1] = { name = name, host = host, port = tonumber(port), version = version }
        servers.of[role] = list
    end
    count_versions()
end

-- How well a version is served by a role: 2, there is a server in the pool; 1, all are out; 0, none.
local function served(role, version)
    local best = 0
    for _, server in ipairs(servers.of[role] or {}) do
        if server.version == version then
            if not state:get("out " .. server.name) then
                return 2
            end
            best = 1
        end
    end
    return best
end

-- Whether a role has servers of a version at all.
function servers.has(role, version)
    return served(role, version) > 0
end

-- What a request is for a server of a role while it is there; size: of its text. A decode server does
-- each of its tokens in company, so that a request is a lot and a long prompt not much more; prefill
-- computes the prompt.
function servers.work(role, size)
    return LEAST_WORK[role] and FIXED_WORK[role] + size or 1
end

local turn = {}

-- The server to ask next, or nil when all were tried: of those in the pool the one with the least work,
-- the fewest requests, or the next in turn. When all are out, one of them: it may be back. want: tried
-- (a set of names), work (see above), version (nil: any), partner (the role of which it needs a server
-- of the same version), prefixes (nil: whoever).
function servers.pick(role, want)
    if ngx.worker.exiting() then
        renew()
    end
    local list = servers.of[role] or {}
    local first = turn[role] or ngx.worker.id() or 0
    local some_rest = state:get("resting " .. role)
    local best, best_at, best_load, best_rests
    local known = {}  -- version -> how well the partner serves it
    for i = 0, #list - 1 do
        local at = (first + i) % #list + 1
        local server = list[at]
        local its = server.version
        local usable = not want.tried[server.name] and (not want.version or its == want.version)
        local alone = false
        if usable and want.partner and not servers.of_one_version then
            known[its] = known[its] or served(want.partner, its)
            usable, alone = known[its] > 0, known[its] == 1
        end
        if usable then
            local rests = alone or some_rest and state:get("out " .. server.name) ~= nil
            local load = COUNTED[role] and (state:get(role .. " " .. server.name) or 0) or 0
            if not best or (best_rests and not rests) or (best_rests == rests and load < best_load) then
                best, best_at, best_load, best_rests = server, at, load, rests
            end
        end
    end
    if best then
        turn[role] = best_at
        state:incr(role .. " " .. best.name, want.work, 0)
    end
    return best
end

-- A request that was picked for a server is no longer with it.
function servers.release(role, name, work)
    state:incr(role .. " " .. name, -work, work)
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
    state:set("resting " .. role, true, FRESH_S)
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
    local status, why = http.ask(server, PROBE, PROBE_MS, LARGEST_ANSWER)
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
    local status, text = http.ask(server, REAL, REAL_MS, LARGEST_ANSWER)
    if status and status < 500 and text:find "^%s*{.*}%s*$" then
        return true
    end
    return false, status and "a real request is answered with " .. status .. " or nonsense" or text
end

local METRICS = "GET /metrics HTTP/1.1\r\nHost: omnikit\r\nConnection: close"
    .. "\r\n\r\n"
local seen = {}  -- by name: the steps of a server that has requests, since when, when looked at

-- The sums of metrics over a server's engines, by name; one is nil that it does not tell.
local function counted(server, names)
    local status, text = http.ask(server, METRICS, PROBE_MS, LARGEST_ANSWER)
    local sums = {}
    for line in (status == 200 and text or ""):gmatch "[^\n]+" do
        local name = line:match "^[%w_:]+"
        if name and names[name] then
            sums[name] = (sums[name] or 0) + (tonumber(line:match "%S+$") or 0)
        end
    end
    return sums
end

-- KV that a prefill server gave up before it was fetched: how often that was so far, how often decode
-- fetched it all the same; what it computes now is told besides. nil: it does not say.
function servers.gave_up(server)
    local sums = counted(server, { [KV_EXPIRED] = true, [KV_LATE] = true, [RUNNING] = true })
    local expired, late = sums[KV_EXPIRED], sums[KV_LATE]
    if expired and late then
        state:set("expired " .. server.name, expired)
        state:set("late " .. server.name, late)
        return expired, late, sums[RUNNING] == 0
    end
end

-- What was known of that last.
function servers.gave_up_before(name)
    return state:get("expired " .. name) or 0, state:get("late " .. name) or 0
end

local told_at = {}  -- by name: when a prefill server was asked for it

-- Whether a server has requests and has computed nothing of them for long: its engine hangs, though
-- its API server answers.
local function stands_still(role, server)
    local name, now = server.name, ngx.now()
    local its = seen[name]
    if STALL_S == 0 or (state:get(role .. " " .. name) or 0) <= 0 then
        seen[name] = nil
        return false
    elseif not its then
        its = { since = now, looked = now }
        seen[name] = its
    elseif now - its.looked >= STALL_S / STALL_LOOKS then
        local steps = counted(server, { [STEPS] = true })[STEPS]
        if steps ~= its.steps then
            its.steps, its.since = steps, now
        end
        its.looked = now
    end
    return its.steps ~= nil and now - its.since >= STALL_S
end

local function look(role, server)
    local name = server.name
    local well, why = servers.says_well(server)
    if well and stands_still(role, server) then
        state:set("silent " .. name, "long", FRESH_S)
        return servers.eject(role, name, "it has requests and has computed nothing for " .. STALL_S .. " s")
    end
    if not well then
        if why == "timeout" then
            state:add("silent since " .. name, ngx.now())
            if ngx.now() - (state:get("silent since " .. name) or 0) >= SILENCE_S then
                state:set("silent " .. name, "long", FRESH_S)
            end
        end
        return servers.eject(role, name, "its /health: " .. why)
    end
    if role == "prefill" and ngx.now() - (told_at[name] or 0) >= KV_LOOK_S then
        told_at[name] = ngx.now()
        servers.gave_up(server)
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
