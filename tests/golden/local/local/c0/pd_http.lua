-- generated from local
-- One connection to one server: how its answer is read, and when waiting for it ends. Who waits looks
-- up each second: a server that has answered no probe for long (see pd_servers.lua) is given up,
-- however long a request may take.

local state = ngx.shared.pd_state

local CONNECT_MS, READ_MS = 5000, 3600000
local PIECE = 65536
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

-- What socket:receive or socket:receiveany gives, after any wait that is allowed. Otherwise nil and
-- why: "timeout", "silent" (the server answers no probe) or what the socket says.
local function receive(link, method, what)
    local socket = link.socket
    local data, why, part = socket[method](socket, what)
    if data or why ~= "timeout" then
        return data, why
    end
    local waited, parts = link.look_ms, {}
    while true do
        if part and part ~= "" then
            parts[#parts + 1], waited = part, 0
            what = type(what) == "number" and what - #part or what
        end
        if waited >= link.wait_ms then
            return nil, "timeout"
        elseif state:get("silent " .. link.name) == "long" then
            return nil, "silent"
        end
        data, why, part = socket[method](socket, what)
        if data then
            parts[#parts + 1] = data
            return table.concat(parts)
        elseif why ~= "timeout" then
            return nil, why
        end
        waited = waited + link.look_ms
    end
end

-- The head of an answer: status, and headers by lower-case name and in their order; otherwise nil
-- and why.
function http.read_head(link)
    local status, headers
    repeat
        local line, why = receive(link, "receive", "*l")
        status = line and tonumber(line:match "^HTTP/1%.%d (%d%d%d)")
        if not status then
            return nil, why or "no HTTP"
        end
        headers = {}
        local size = 0
        while true do
            line, why = receive(link, "receive", "*l")
            if not line then
                return nil, why
            elseif line == "" then
                break
            end
            size = size + #line
            if size > 65536 then
                return nil, "no HTTP"
            end
            local name, value = line:match "^([^%s:]+):%s*(.-)%s*$"
            if name then
                headers[name:lower()] = value
                headers[#headers + 1] = { name, value }
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
            local data, why = receive(link, "receiveany", math.min(left, PIECE))
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
            local line, why = receive(link, "receive", "*l")
            local left = line and tonumber(line:match "^%x+" or "", 16)
            if not left then
                return nil, why or "no chunk"
            elseif left == 0 then
                repeat
                    line, why = receive(link, "receive", "*l")
                until not line or line == ""
                return line ~= nil, why
            end
            local good, fault = pass(left)
            if not good then
                return nil, fault
            end
            receive(link, "receive", 2)
        end
    end
    local left = link.status == 204 and 0 or tonumber(headers["content-length"])
    if not left then  -- its end is that of the connection
        link.ends = true
        while true do
            local data, why = receive(link, "receiveany", PIECE)
            if not data then
                return why == "closed" or nil, why
            elseif not take(data) then
                return nil, "stopped"
            end
        end
    end
    return pass(left)
end

-- The connection goes back to the others that are kept, after an answer that was read to its end.
function http.keep(link, idle_ms, pool_size)
    if link.ends or (link.headers.connection or ""):lower() == "close" then
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
