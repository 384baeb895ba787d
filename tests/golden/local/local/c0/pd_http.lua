-- generated from local
-- One connection to one server: how its answer is read, and when waiting for it ends. Who waits looks
-- up each second: a server that has answered no probe for long (see pd_servers.lua) is given up,
-- however long a request may take.

local state = ngx.shared.pd_state

local CONNECT_MS, READ_MS = 5000, 3600000
local PIECE = 65536
local LONGEST_LINE = 65536  -- and all of a head
local CARRIAGE_RETURN = 13
local LOOK_MS = math.min(1000, READ_MS)

local http = {}

-- A socket to a server {name, host, port}, connected; otherwise nil and why. pool: of the idle
-- connections that it may be one of; wait_ms: for each step, other than the settings have it.
function http.connect(server, pool, pool_size, wait_ms)
    local socket = ngx.socket.tcp()
    socket:settimeouts(wait_ms or CONNECT_MS, wait_ms or READ_MS, wait_ms or LOOK_MS)
    local good, why = socket:connect(server.host, server.port, { pool = pool, pool_size = pool_size })
    if good then
        return { socket = socket, name = server.name, wait_ms = wait_ms or READ_MS, look_ms = wait_ms or LOOK_MS }
    end
    return nil, why
end

-- More of what a server answers, after any wait that is allowed. Otherwise nil and why: "timeout",
-- "silent" (the server answers no probe) or what the socket says.
local function more(link)
    local waited = 0
    while true do
        local data, why = link.socket:receiveany(PIECE)
        if data or why ~= "timeout" then
            return data, why
        end
        waited = waited + link.look_ms
        if waited >= link.wait_ms then
            return nil, "timeout"
        elseif state:get("silent " .. link.name) == "long" then
            return nil, "silent"
        end
    end
end

-- The next line, without its end. What came with it and is not read yet is held: link.held from
-- link.at on.
local function line_of(link)
    while true do
        local held, at = link.held, link.at
        local stop = held:find("\n", at, true)
        if stop then
            link.at = stop + 1
            return held:sub(at, stop - (held:byte(stop - 1) == CARRIAGE_RETURN and 2 or 1))
        elseif #held - at > LONGEST_LINE then
            return nil, "no HTTP"
        end
        local data, why = more(link)
        if not data then
            return nil, why
        end
        link.held, link.at = held:sub(at) .. data, 1
    end
end

-- The next bytes, as they come, so many at most.
local function bytes_of(link, most)
    local held, at = link.held, link.at
    if at > #held then
        local why
        held, why = more(link)
        if not held then
            return nil, why
        end
        link.held, at = held, 1
    end
    link.at = math.min(at + most, #held + 1)
    return at == 1 and link.at > #held and held or held:sub(at, link.at - 1)
end

-- The head of an answer: status, and headers by lower-case name and in their order; otherwise nil
-- and why.
function http.read_head(link)
    local status, headers
    link.held, link.at = "", 1
    repeat
        local line, why = line_of(link)
        status = line and tonumber(line:match "^HTTP/1%.%d (%d%d%d)")
        if not status then
            return nil, why or "no HTTP"
        end
        headers = {}
        local size = 0
        while true do
            line, why = line_of(link)
            if not line then
                return nil, why
            elseif line == "" then
                break
            end
            size = size + #line
            if size > LONGEST_LINE then
                return nil, "no HTTP"
            end
            local name, value = line:match "^([^%s:]+):%s*(.-)%s*$"
            if name then
                local lower = name:lower()
                headers[lower] = value
                headers[#headers + 1] = { name, value, lower }
            end
        end
    until status >= 200
    link.status, link.headers = status, headers
    return status, headers
end

-- Gives the body of an answer to take(piece), as it comes. Otherwise, and when take gives false, nil
-- and why.
function http.read_body(link, take)
    local headers = link.headers
    local function pass(left)
        while left > 0 do
            local data, why = bytes_of(link, left)
            if not data then
                return nil, why
            elseif not take(data) then
                return nil, "stopped"
            end
            left = left - #data
        end
        return true
    end
    if (headers["transfer-encoding"] or ""):lower() == "chunked" then
        while true do
            local line, why = line_of(link)
            local left = line and tonumber(line:match "^%x+" or "", 16)
            if not left then
                return nil, why or "no chunk"
            elseif left == 0 then
                repeat
                    line, why = line_of(link)
                until not line or line == ""
                return line ~= nil, why
            end
            local good, fault = pass(left)
            if not good then
                return nil, fault
            end
            line, why = line_of(link)
            if line ~= "" then
                return nil, why or "no chunk"
            end
        end
    end
    local left = link.status == 204 and 0 or tonumber(headers["content-length"])
    if not left then  -- its end is that of the connection
        link.ends = true
        local good, why = pass(math.huge)
        return good or why == "closed" or nil, why
    end
    return pass(left)
end

-- The connection goes back to the others that are kept, after an answer that was read to its end.
function http.keep(link, idle_ms, pool_size)
    if link.ends or link.at <= #link.held or (link.headers.connection or ""):lower() == "close" then
        link.socket:close()
    else
        link.socket:setkeepalive(idle_ms, pool_size)
    end
end

-- A short request on a connection of its own, and its whole answer: status and text; otherwise nil
-- and why.
function http.ask(server, request, wait_ms, largest)
    local link, why = http.connect(server, server.name .. " probe", 1, wait_ms)
    if not link then
        return nil, why
    end
    local parts, size = {}, 0
    local status, whole
    status, why = link.socket:send(request)
    if status then
        status, why = http.read_head(link)
    end
    if status then
        whole, why = http.read_body(link, function(piece)
            parts[#parts + 1], size = piece, size + #piece
            return size <= largest
        end)
    end
    link.socket:close()
    return whole and status or nil, whole and table.concat(parts) or why
end

return http
