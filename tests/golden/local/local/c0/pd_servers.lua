-- generated from local
-- The servers behind the proxy: which one is asked next, which one rests after it could not be
-- reached, how many requests each has now. What workers share, and a reload keeps, is in shared
-- memory; the list itself is read from the upstreams of nginx.conf beside this file, so that who
-- takes a server out there (a roll) takes it out here.

local state = ngx.shared.pd_state

local MAX_FAILS = 3
local FAIL_TIMEOUT_S = 10
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
        for host, port in block:gmatch "\n? +server (%S+):(%d+)" do
            list[#list + 1] = { name = host .. ":" .. port, host = resolved(host), port = tonumber(port) }
        end
        servers.of[role] = list
    end
end

local turn = {}

-- The server to ask next, or nil when all were tried: of those that do not rest, the one with the
-- fewest requests, or the next in turn. When all rest, one of them: it may be back.
function servers.pick(role, tried)
    local list = servers.of[role] or {}
    local first = turn[role] or ngx.worker.id() or 0
    local some_rest = MAX_FAILS > 0 and state:get("resting " .. role)
    local best, best_at, best_load, best_rests
    for i = 0, #list - 1 do
        local at = (first + i) % #list + 1
        local server = list[at]
        if not tried[server.name] then
            local rests = some_rest and (state:get("fails " .. server.name) or 0) >= MAX_FAILS
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

-- A server that could not be reached rests after some such failures. One that ended a connection
-- on which it had a request does not: that may be the request's fault.
function servers.unreachable(role, name)
    if MAX_FAILS > 0 then
        local fails = state:incr("fails " .. name, 1, 0, FAIL_TIMEOUT_S)
        if fails and fails >= MAX_FAILS then
            state:set("resting " .. role, true, FAIL_TIMEOUT_S)
        end
    end
end

return servers
