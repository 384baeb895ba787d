-- generated from local
-- What the proxy does with one generation request: prefill with a shortened copy, then decode with
-- the original and the hand-over, and who gets it again where a server was lost. Every other request
-- is passed on by nginx itself (nginx.conf beside this file); only whom it asks is chosen here.

local ffi = require "ffi"
local http = require "pd_http"
local json = require "pd_json"
local servers = require "pd_servers"
local state, names = ngx.shared.pd_state, ngx.shared.pd_names

local KV_PARAMS = [[{"do_remote_decode": true, "do_remote_prefill": false, "remote_engine_id": null, "remote_block_ids": null, "remote_host": null, "remote_port": null}]]  -- kv_transfer_params of the prefill request, as JSON text
local MIN_TOKENS = false  -- a prompt that ends at once is handed over too
local DISAGGREGATED = true
local KV_SAFE_S = 10  -- what began to come so soon after prefill had its KV
local LATE_LOOKS, LATE_LOOK_S = 3, 0.3
local RETRIES = 1  -- servers that may get a request after one that refused it
local READ_MS = 3600000
local LARGEST_ANSWER = 1048576  -- of a prefill server
local HALF_SENT = 512  -- requests of one client whose body is on its way; 0: any
local POOL = 64
local FIRST, SECOND = "prefill", "decode"  -- of a pair, as asked
local FETCH_S = 10  -- within which a decode server that has a request fetches its KV
local IDLE_MS = 4000
local READY_S, PROBES = 1, 16  -- how long a look at the servers counts; how many are asked at once
local KEPT_MEMORY = 32 * 1024 * 1024  -- of a worker; what is larger goes back to the system at once

local LARGEST_WHOLE = 64 * 1024 * 1024  -- of an answer of decode that is no stream
local MOST_LEGS = 16  -- decode servers that may have a part of one answer
local LARGEST_EVENT = 1024 * 1024  -- that is held until it is whole

-- Of a client's headers, what is of its connection to the proxy or what the proxy says itself.
local OWN_HEADERS = {}
for name in ([[accept-encoding connection content-length content-type expect host keep-alive
    proxy-connection te trailer transfer-encoding upgrade x-request-id]]):gmatch "%S+" do
    OWN_HEADERS[name] = true
end

-- Of a decode server's headers, what is of its connection or what the proxy says itself.
local NOT_PASSED = {}
for name in ([[connection date keep-alive proxy-connection server trailer transfer-encoding upgrade
    x-request-id]]):gmatch "%S+" do
    NOT_PASSED[name] = true
end

-- Paths that are passed on, as clients send them; "*" stands for one step of any name.
local PATHS, PATTERNS = {}, {}
for path in ([[
    /v1/models
    /v1/models/*
    /v1/completions
    /v1/chat/completions
    /v1/responses
    /v1/responses/*
    /v1/responses/*/cancel
    /v1/messages
    /v1/messages/count_tokens
    /v1/embeddings
    /v1/score
    /v1/rerank
    /v1/audio/transcriptions
    /v1/audio/translations
]]):gmatch "%S+" do
    if path:find("*", 1, true) then
        PATTERNS[#PATTERNS + 1] = "^" .. path:gsub("[%.%-]", "%%%0"):gsub("%*", "[%%w_~:@][%%w%%._~:@%%-]*") .. "$"
    else
        PATHS[path] = true
    end
end

local proxy = {}

local function say(status, text)
    ngx.status = status
    ngx.header["Content-Type"] = "application/json"
    ngx.header["Content-Length"] = #text
    ngx.print(text)
    return ngx.exit(ngx.HTTP_OK)
end

local function refuse(status, kind, message)
    message = message:gsub('["\\]', "\\%0")
    return say(status, ('{"error":{"message":"%s","type":"%s","code":%d}}\n'):format(message, kind, status))
end

-- Why a server did not answer, in one word -> what the client is told.
local FAULTS = {
    unreachable = { 502, "No %s server can be reached." },
    timeout = { 504, "The %s server did not answer in time." },
    died = { 502, "The %s server ended the connection before it answered. The request may be the"
        .. " reason, so no other server gets it." },
    lost = { 502, "The %s server that had the request was lost." },
}

-- A failure: status, kind and message; or status, and body and headers as a server gave them.
local function fault(role, what)
    return { FAULTS[what][1], role .. "_" .. what, FAULTS[what][2]:format(role), [what] = true }
end

local function tell(failure)
    if failure.died then
        ngx.header["X-Should-Retry"] = "false"  -- OpenAI's clients would send it to the next server
    end
    if not failure.body then
        return refuse(unpack(failure))
    end
    for _, name in ipairs { "Retry-After", "WWW-Authenticate" } do
        ngx.header[name] = failure.headers[name:lower()]
    end
    return say(failure[1], failure.body)
end

-- The whole body, or nothing after an answer was given. A client may have so many on their way.
local function read_body()
    local key = "half " .. ngx.var.binary_remote_addr
    if HALF_SENT > 0 and state:incr(key, 1, 0) > HALF_SENT then
        state:incr(key, -1)
        return refuse(429, "too_many_requests", "Too many requests of this client have not arrived yet.")
    end
    ngx.var.pd_half_sent = "yes"
    ngx.req.read_body()
    proxy.arrived()
    return ngx.req.get_body_data() or ""
end

function proxy.arrived()
    if HALF_SENT > 0 and ngx.var.pd_half_sent == "yes" then
        ngx.var.pd_half_sent = ""
        state:incr("half " .. ngx.var.binary_remote_addr, -1)
    end
end

local function is_open(path)
    if PATHS[path] then
        return true
    end
    for _, pattern in ipairs(PATTERNS) do
        if path:find(pattern) then
            return true
        end
    end
    return false
end

-- Engines know a request by its name, and whose KV is whose: one that another request has now is made
-- longer. The client is told.
local function name_request()
    local var = ngx.var
    if names:safe_add(var.pd_request_id, true, READ_MS / 1000) then
        var.pd_name = var.pd_request_id
    else
        var.pd_request_id = var.pd_request_id .. "-" .. var.request_id
    end
end

-- Every request for a server comes in here: who asks, and for what. What a client sends as its key
-- reaches no server where keys are in use; the servers get their own. wait: for the whole body.
function proxy.enter(wait)
    if not is_open(ngx.var.pd_path) then
        refuse(404, "not_found", "The proxy does not pass this path on; proxy.paths names those that it does.")
        return false
    end
    name_request()
    if wait then
        proxy.pass()
    end
    return true
end

-- Requests that are not edited: they only wait until they are whole.
function proxy.pass()
    if ngx.req.get_method() ~= "GET" then
        read_body()
    end
end

-- glibc otherwise gives the memory of each large request back, and the kernel makes it anew page by
-- page: half of the time that such a request takes.
ffi.cdef "int mallopt(int what, int value);"
pcall(function()
    ffi.C.mallopt(-3, KEPT_MEMORY)  -- M_MMAP_THRESHOLD
    ffi.C.mallopt(-1, 2 * KEPT_MEMORY)  -- M_TRIM_THRESHOLD
end)

-- Bytes above 127 are rare in JSON, and the look at four at a time is quick.
local function is_utf8(text)
    local words, count = ffi.cast("const int32_t *", text), math.floor(#text / 4)
    local all = 0
    for i = 0, count - 1 do
        all = bit.bor(all, words[i])
    end
    for i = count * 4 + 1, #text do
        all = bit.bor(all, text:byte(i))
    end
    if bit.band(all, 0x80808080) == 0 then
        return true
    end
    -- The library looks at the whole text before it looks for the pattern.
    local _, _, wrong = ngx.re.find(text, "^", "ju")
    return not wrong
end

local function nothing(value)
    return value == nil or value == "null" or value == "false"
end

-- One hand-over is one prompt's, for one answer whose prompt decode need not see itself: otherwise
-- decode computes the prompt. The first word for the log says which.
local function handed_over_at_all(body, list)
    local function value(name)
        return json.value(body, list, name)
    end
    local prompt = json.last(list, "prompt")
    local several = prompt and body:find("^%[%s*[%[{\"]", prompt.value) and prompt.elements ~= 1
    local n, best_of = value "n", value "best_of"
    return not (several or value "prompt_embeds"
        or not (nothing(n) or n == "1") or not (nothing(best_of) or best_of == "1")
        or not nothing(value "use_beam_search") or not nothing(value "prompt_logprobs")
        or (not nothing(value "echo") and not nothing(value "logprobs")))
end

local function prefill_pieces(body, list, kv_params)
    local add = { '"max_tokens":1', '"stream":false' }
    local drop = { max_tokens = true, stream = true, stream_options = true, kv_transfer_params = true }
    if json.last(list, "max_completion_tokens") then
        add[#add + 1], drop.max_completion_tokens = '"max_completion_tokens":1', true
    end
    if MIN_TOKENS or (tonumber(json.value(body, list, "min_tokens") or 0) or 0) > 1 then
        add[#add + 1], drop.min_tokens = '"min_tokens":1', true
    end
    if kv_params then
        add[#add + 1] = '"kv_transfer_params":' .. kv_params
    end
    return json.edited(body, list, drop, add)
end

local function size_of(pieces)
    local size = 0
    for _, piece in ipairs(pieces) do
        size = size + #piece
    end
    return size
end

-- What every server gets of the client's head: all but the connection's own. Nobody may compress the
-- answer, since it is read here.
local function client_lines()
    local lines = { "\r\nHost: " .. (ngx.var.http_host or ngx.var.host) }
    for name, values in pairs(ngx.req.get_headers(0, true)) do
        if not OWN_HEADERS[name:lower()] then
            for _, value in ipairs(type(values) == "table" and values or { values }) do
                lines[#lines + 1] = name .. ": " .. tostring(value)
            end
        end
    end
    return table.concat(lines, "\r\n")
end

-- The head of the request that a server gets.
local function head_for(size, leg)
    leg.lines = leg.lines or client_lines()
    return "POST " .. leg.uri .. " HTTP/1.1" .. leg.lines .. "\r\nX-Request-Id: " .. leg.id
        .. "\r\nContent-Type: application/json\r\nContent-Length: " .. size .. "\r\n\r\n"
end

-- One request to one server. Gives the answer {socket, status, headers}, its body not yet read;
-- otherwise nil and one of: "unreachable" (it never got the request), "connect timeout" (nor this),
-- "timeout", "silent" (the server answers nobody), "died".
local function ask_one(role, server, request, fresh)
    local link, why = http.connect(server, server.name .. (fresh and " fresh" or ""), POOL)
    if not link then
        return nil, why == "timeout" and "connect timeout" or "unreachable"
    end
    local socket = link.socket
    local reused = socket:getreusedtimes() > 0
    local sent, status
    sent, why = socket:send(request)
    if sent then
        status, why = http.read_head(link)
    end
    if status then
        return link
    end
    socket:close()
    local waited = why == "timeout" or why == "silent"
    -- The server may have closed a connection that was idle just when it was taken again.
    if reused and not waited then
        local answer, again = ask_one(role, server, request, true)
        return answer, again == "unreachable" and "died" or again
    end
    local words = waited and "upstream timed out" or "upstream prematurely closed connection"
    ngx.log(ngx.ERR, role, " server ", server.name, ": ", words, " (", why, ")")
    return nil, waited and why or "died"
end

local function added(notes, name, value)
    notes[name] = notes[name] and notes[name] .. ", " .. value or value
end

-- Who is to blame where a server broke a request off: "lost" when the server itself is sick, "died"
-- when it lives on, so that it may be the request's fault.
local function blame(role, server, leg, why)
    leg.avoid[role][server.name] = true
    if why == "silent" or servers.is_sick(role, server) then
        return "lost"
    end
    servers.fault(role, server.name, "it ended a connection (" .. why .. ")")
    return "died"
end

-- A request to a server of a role. Gives its answer, with its server; otherwise nil and one of:
-- "unreachable", "timeout", "died", "lost". Another one is asked when one cannot be reached, and, so
-- often as the settings say, when one refuses. What was done is noted for the log: ROLE (servers),
-- ROLE_status; who has the request now is in the variable pd_holds_ROLE. leg: {uri, id, notes, avoid:
-- servers by role and name}.
local function ask(role, pieces, leg)
    local size = size_of(pieces)
    local request = { head_for(size, leg), pieces }
    local tried, refusals, timeouts = {}, 0, 0
    local want = { tried = tried, work = servers.work(role, size), prefixes = role == "prefill" and leg.prefixes or nil }
    local refusal
    for name in pairs(leg.avoid[role]) do
        tried[name] = true
    end
    while true do
        local first = role == FIRST
        want.version = leg.version
        if leg.paired and not first then
            want.version = leg.pairs_with
        end
        want.partner = leg.paired and first and SECOND or nil
        local server = servers.pick(role, want)
        if not server then
            return refusal, "unreachable"
        elseif refusal then
            refusal.socket:close()
            refusal = nil
        end
        tried[server.name] = true
        leg.pairs_with = server.version
        ngx.var["pd_holds_" .. role] = want.work .. " " .. server.name
        local from = ngx.now()
        local answer, why = ask_one(role, server, request)
        ngx.update_time()
        if why == "died" or why == "silent" then
            why = blame(role, server, leg, why)
        end
        added(leg.notes, role, server.name)
        if server.version ~= "" then
            added(leg.notes, "versions", server.version)
        end
        added(leg.notes, role .. "_status", tostring(answer and answer.status or why))
        if answer then
            answer.from, answer.head, answer.server, answer.notes = from, ngx.now(), server, leg.notes
            if answer.status >= 500 and answer.status ~= 503 then
                servers.fault(role, server.name, "it answers with " .. answer.status)
            end
            if answer.status ~= 502 and answer.status ~= 503 or refusals >= RETRIES then
                return answer
            end
            refusal, refusals = answer, refusals + 1
        elseif why == "unreachable" or why == "connect timeout" then
            servers.fault(role, server.name, "it cannot be reached")
            timeouts = timeouts + (why == "connect timeout" and 1 or 0)
        end
        servers.release(role, server.name, want.work)
        ngx.var["pd_holds_" .. role] = ""
        if not answer and (why == "died" or why == "lost") then
            return nil, why
        elseif not answer and (why == "timeout" or timeouts > RETRIES) then
            return nil, "timeout"
        end
    end
end

local function release(role)
    local work, name = ngx.var["pd_holds_" .. role]:match "^(%d+) (.+)$"
    if work then
        ngx.var["pd_holds_" .. role] = ""
        servers.release(role, name, tonumber(work))
    end
end

-- The answer of a prefill server, with its whole body; otherwise nil and why.
local function ask_prefill(pieces, leg)
    local answer, why = ask("prefill", pieces, leg)
    if answer then
        local parts, size = {}, 0
        local whole
        whole, why = http.read_body(answer, function(piece)
            parts[#parts + 1], size = piece, size + #piece
            return size <= LARGEST_ANSWER
        end)
        ngx.update_time()
        leg.notes.prefill_time = ngx.now() - answer.from
        if whole then
            http.keep(answer, IDLE_MS, POOL)
            answer.body = table.concat(parts)
        else
            answer.socket:close()
            ngx.log(ngx.ERR, "answer of prefill server ", answer.server.name, ": ",
                why == "stopped" and "too large" or why)
            if why ~= "stopped" and why ~= "timeout" then
                why = blame("prefill", answer.server, leg, why)
            end
            answer = nil
        end
    end
    release "prefill"
    return answer, why
end

-- Whoever leaves ends the request, but not before decode has begun to answer (told.begun): the KV of
-- the prompt waits on the prefill server until decode has fetched it.
local function watch_client(told)
    local good, why = ngx.on_abort(function()
        local until_then = ngx.now() + FETCH_S
        while not told.begun and ngx.now() < until_then do
            ngx.sleep(0.05)
        end
        ngx.exit(499)
    end)
    if not good then
        ngx.log(ngx.ERR, why)
    end
end

local function pass_headers(answer)
    ngx.status = answer.status
    local passed = {}
    for _, header in ipairs(answer.headers) do
        local name, value, lower = unpack(header)
        if not NOT_PASSED[lower] then
            local before = passed[lower]
            if before and lower ~= "content-type" then
                value = type(before) == "table" and { value, unpack(before) } or { before, value }
            end
            passed[lower] = value
            ngx.header[name] = value
        end
    end
end

local function is_stream(answer)
    return (answer.headers["content-type"] or ""):find("text/event-stream", 1, true) ~= nil
end

-- A server did not do the request: its words where they are JSON, ours otherwise. lost: it is sick.
-- unfit: this is no answer to any request.
local function refused(role, answer, leg, is_json)
    local status, server = answer.status, answer.server
    leg.avoid[role][server.name] = true
    local lost = status >= 500 and servers.is_sick(role, server)
    if is_json and status >= 400 then
        if status < 500 then
            servers.success(server.name)
        end
        return { status, role .. "_error", "The " .. role .. " server answered with status " .. status .. ".",
            body = answer.body, headers = answer.headers, lost = lost }
    end
    if status < 500 then
        servers.fault(role, server.name, "what it answers is no JSON")
    end
    return { status >= 400 and status or 502, role .. "_error",
        "The " .. role .. " server answered with status " .. status .. " and no JSON.", lost = lost,
        unfit = status ~= 502 and status ~= 503 }
end

-- Has prefill compute the prompt. Gives what it hands over, or nil; if it fails, nil and the failure.
local function prefilled(body, list, kv_params, leg)
    local answer, why = ask_prefill(prefill_pieces(body, list, kv_params), leg)
    if why == "stopped" then
        return nil, { 502, "prefill_answer_too_large",
            "The answer of the prefill server is larger than proxy.subrequest_output_buffer_size." }
    elseif not answer then
        return nil, fault("prefill", why)
    end
    local answered = json.members(answer.body)
    if answer.status < 200 or answer.status >= 300 or not answered then
        return nil, refused("prefill", answer, leg, answered)
    end
    servers.success(answer.server.name)  -- not before: the head alone may be well
    leg.kv = { server = answer.server, at = ngx.now() }
    leg.kv.expired, leg.kv.late = servers.gave_up_before(answer.server.name)
    local handover = json.value(answer.body, answered, "kv_transfer_params")
    return handover ~= "null" and handover or nil
end

-- What a client sends as kv_transfer_params never reaches a server.
local function pulled(body, list, leg)
    if not handed_over_at_all(body, list) then
        leg.notes.handover = "not asked for"
        return nil
    end
    leg.paired = true
    local handover, failure = prefilled(body, list, KV_PARAMS, leg)
    if failure then
        return nil, failure
    end
    leg.notes.handover = handover and "yes" or "no"
    if not handover then
        leg.kv = nil
        ngx.log(ngx.WARN, "prefill gave no kv_transfer_params: decode computes the prompt again")
    end
    return handover
end

-- Follows an answer that is passed on as it is, see pd_recomputed.lua for one that can be gone on
-- with. Of a stream the client gets whole events only, and hears of its end only where it is one.
local plain = {}
plain.__index = plain

function plain.new()
    return setmetatable({ held = "", leg = 1 }, plain)
end

function plain:wanted()
    return nil
end

-- A piece of a stream; gives what the client gets now.
function plain:take(piece)
    local text, stop = piece, #piece + 1
    if self.held ~= "" or piece:sub(-2) ~= "\n\n" then
        text = self.held .. piece
        stop = text:match ".*\n\r?\n()" or #text > LARGEST_EVENT and #text + 1 or 1
    end
    self.held = text:sub(stop)
    text = text:sub(1, stop - 1)
    if self.error then
        return ""
    end
    local from = text:find('data: {"error"', 1, true)
    if from and (from == 1 or text:byte(from - 1) == 10) then
        self.error = text:sub(from):match "^[^\n]*"
        return text:sub(1, from - 1)
    end
    self.done = self.done or text:sub(-18):find("data: [DONE]", 1, true) ~= nil
    return text
end

-- What is left of a stream at its end.
function plain:rest()
    local rest = self.held
    self.held = ""
    self.done = self.done or rest:find("data: [DONE]", 1, true) ~= nil
    return self.error and "" or rest
end

-- What a stream that broke off lacks, where that is its last words at most; nil otherwise.
function plain:lacks()
    return self.done and ""
end

-- What the server began to say and did not end is forgotten.
function plain:forget()
    self.held, self.error, self.done = "", nil, nil
end

function plain:whole(text)
    return text
end

function plain:next()
    return nil, "its engine does not tell the tokens of an answer"
end

local function times_of_decode(answer)
    ngx.update_time()
    answer.notes.decode_first, answer.notes.decode_time = answer.head - answer.from, ngx.now() - answer.from
end

-- Decode's answer broke off. Gives the failure; "stopped": nobody is there for it.
local function broke_off(answer, leg, why)
    answer.socket:close()
    if why == "stopped" then
        ngx.exit(ngx.ERROR)  -- the client, if there is one, sees that the answer is not whole
        return { 499, "stopped", "stopped" }
    end
    ngx.log(ngx.ERR, "decode server ", answer.server.name, ": upstream prematurely closed connection (", why, ")")
    if why ~= "timeout" then
        why = blame("decode", answer.server, leg, why)
    end
    return fault("decode", why)
end

-- Whether decode may have computed with the KV of another prompt: prefill gives up what is not fetched
-- in time (a decode engine that stood still), and decode does not notice. begins: an answer that has
-- only begun now, so that its KV was fetched a moment ago; one that is whole may have taken its time.
local function may_be_wrong(leg, begins)
    local kv = leg.kv
    local looks = 0
    while kv and ngx.now() - kv.at >= KV_SAFE_S do
        local expired, late, idle = servers.gave_up(kv.server)
        if not expired or expired == kv.expired and late == kv.late then
            return false
        elseif late ~= kv.late or begins or idle then
            return true
        elseif looks == LATE_LOOKS then  -- it computes, and so would have told by now
            return false
        end
        looks = looks + 1
        ngx.sleep(LATE_LOOK_S)
    end
    return false
end

local function given_up(answer, leg)
    ngx.log(ngx.ERR, "prefill server ", leg.kv.server.name, " gave up KV before it was fetched, and decode server ",
        answer.server.name, " answered late: the answer may be wrong")
    answer.socket:close()
    leg.avoid.decode[answer.server.name] = #servers.of.decode > 1 or nil  -- it may stand still again
    return { 502, "kv_given_up", "Decode fetched the KV of the prompt too late: the answer may be wrong.", unfit = true }
end

-- A stream goes to the client as it comes, as follow has it. Gives a failure, or nil.
local function stream_of(follow, answer, leg, told, late)
    local function send(text)
        if not told.head then
            pass_headers(answer)
            ngx.header["Content-Length"] = nil
            told.head = true
            ngx.flush()  -- the client sees at once that it is served
        end
        if text ~= "" then
            told.sent, told.version = true, answer.server.version
        end
        return text == "" or ngx.print(text) and ngx.flush(true)
    end
    if not late then
        send ""
    end
    local wrong
    local whole, why = http.read_body(answer, function(piece)
        if wrong == nil then
            wrong = may_be_wrong(leg, true)
        end
        if wrong then
            return false
        end
        told.begun = true
        local text = follow:take(piece)
        return text and send(text)
    end)
    times_of_decode(answer)
    if wrong then
        return given_up(answer, leg)
    end
    if not whole then
        local lacks = follow:lacks()
        follow:forget()
        local failure = broke_off(answer, leg, why)
        if not lacks then
            return failure
        end
        send(lacks)
        return nil
    end
    http.keep(answer, IDLE_MS, POOL)
    local rest = follow:rest()
    if follow.error then  -- of the server's own, after which its engine may be gone
        local lost = servers.is_sick("decode", answer.server)
        local words = follow.error
        follow:forget()
        return { 502, "decode_error", "The decode server ended the answer with an error.", event = words, lost = lost }
    elseif not follow.done and not follow.again then
        follow:forget()
        servers.fault("decode", answer.server.name, "its streams have no end")
        leg.avoid.decode[answer.server.name] = true
        return { 502, "decode_error", "The answer of the decode server has no end.", unfit = true }
    end
    servers.success(answer.server.name)
    send(rest)
    return nil
end

-- Asks decode; the part of the answer that it gives goes to the client, as follow has it. Gives a
-- failure, or nil. late: a stream's head goes to the client with its first words. list: nil where the
-- body goes on as it is.
local function decoded(follow, body, list, handover, leg, told, late)
    local pieces = { body }
    if list then
        local add = { follow:wanted() }
        add[#add + 1] = handover and '"kv_transfer_params":' .. handover
        local drop = { kv_transfer_params = true, return_token_ids = follow.asks or nil }
        pieces = json.edited(body, list, drop, add)
    end
    local answer, why = ask("decode", pieces, leg)
    if not answer then
        local failure = fault("decode", why)
        -- The pool has changed since prefill was chosen.
        failure.unfit = why == "unreachable" and handover and not servers.has("decode", leg.pairs_with)
        return failure
    elseif answer.status == 200 and is_stream(answer) then
        return stream_of(follow, answer, leg, told, late)
    end
    local parts, size = {}, 0
    local whole
    whole, why = http.read_body(answer, function(piece)
        told.begun = true
        parts[#parts + 1], size = piece, size + #piece
        return size <= LARGEST_WHOLE
    end)
    times_of_decode(answer)
    if not whole and why == "stopped" then
        answer.socket:close()
        return { 502, "decode_answer_too_large", "The answer of the decode server is larger than the proxy takes." }
    elseif not whole then
        return broke_off(answer, leg, why)
    end
    if answer.status == 200 and may_be_wrong(leg, false) then
        return given_up(answer, leg)
    end
    local text = table.concat(parts)
    answer.body = text
    -- A look at both ends finds what is empty, cut or of another kind; the whole is the client's to read.
    local is_json = text:find "^%s*{" and text:sub(-64):find "}%s*$" and true
    local failure
    if answer.status >= 500 or answer.status == 200 and not is_json then
        local its = refused("decode", answer, leg, is_json)
        failure = (its.lost or its.unfit or told.head or follow.leg > 1) and its
    elseif told.head or follow.leg > 1 and answer.status ~= 200 then
        failure = { 502, "decode_error", "The decode server answered with status " .. answer.status .. "." }
    end
    if not failure then
        if answer.status < 500 then
            servers.success(answer.server.name)
        end
        text = answer.status == 200 and follow:whole(text) or text
        if follow.again then
            told.version = answer.server.version
        else
            pass_headers(answer)
            ngx.header["Content-Length"] = #text
            ngx.print(text)
            ngx.eof()  -- the client first
        end
    end
    http.keep(answer, IDLE_MS, POOL)
    return failure or nil
end

local function go_leg(follow, body, list, leg, told)
    local handover, failure
    if list then
        handover, failure = pulled(body, list, leg)
    end
    if failure then
        return failure
    end
    told.begun = not handover
    return decoded(follow, body, list, handover, leg, told)
end

-- The answer is not whole, and never looks so: an error as the last event of a stream, or instead of
-- the answer.
local function broken_off(told, failure, why)
    local message = failure[3]:gsub("%.$", "") .. ": the answer is not whole"
        .. (why and ", and the proxy could not go on with it: " .. why or "") .. "."
    ngx.log(ngx.ERR, message)
    state:incr("broken", 1, 0)
    if not told.head then
        return refuse(502, failure[2], message)
    end
    message = message:gsub('["\\]', "\\%0")
    ngx.print(failure.event or 'data: {"error":{"message":"' .. message .. '","type":"' .. failure[2] .. '","code":502}}', "\n\n")
    return ngx.eof()
end

-- Whether what failed may be done again: once where a server was lost with it, since one request in
-- its place may be the reason of that; where a server gave no answer to any request, as often as one
-- that is refused may go on.
local function may_be_done_again(told, failure)
    if failure.lost then
        told.lost = told.lost + 1
        failure.died = told.lost > 1
        return RETRIES > 0 and told.lost == 1
    end
    told.unfit = told.unfit + 1
    return failure.unfit and told.unfit <= RETRIES
end

local RECOMPUTED = { 502, "decode_recomputed", "The decode server ran out of room (recomputed)." }

local function answer_with(body, list)
    local told = { begun = true, legs = 0, lost = 0, unfit = 0 }
    watch_client(told)
    local follow = plain.new()
    local uri, avoid, notes = ngx.var.request_uri, { prefill = {}, decode = {} }, {}
    ngx.ctx.notes = notes
    local before, cause  -- why it is done again, why the rest was asked for
    while true do
        told.legs, told.sent = told.legs + 1, false
        local id = ngx.var.pd_request_id .. (told.legs > 1 and "-" .. told.legs or "")
        -- What is gone on with stays with its version: the answer is one server's.
        local leg = { uri = uri, id = id, avoid = avoid, version = told.version, notes = notes }
        local failure = go_leg(follow, body, list, leg, told)
        if not failure and not follow.again then
            return ngx.eof()
        end
        release "prefill"
        release "decode"
        if failure and before and failure[2]:find "_unreachable$" then
            failure = before  -- nobody is left to do it again
        end
        local again = failure and may_be_done_again(told, failure)
        local why
        if failure and again and not told.sent then
            ngx.log(ngx.WARN, "the request is done again elsewhere: ", failure[3])
            state:incr("again", 1, 0)
            told.begun = true
        elseif failure and not told.head and follow.leg == 1 then
            return tell(failure)
        elseif failure and not (again and told.sent) then
            return broken_off(told, cause or failure, cause and failure[3]:gsub("%.$", ""))
        else
            cause = failure or RECOMPUTED
            local rest, same = follow:next()
            if follow.leg > MOST_LEGS then
                rest, same = nil, "it happened " .. MOST_LEGS .. " times"
            end
            if not rest then
                return broken_off(told, cause, same)
            end
            ngx.log(ngx.WARN, cause[3], " The rest is asked for.")
            body, list = rest, json.members(rest)
            uri = same and ngx.var.request_uri or "/v1/completions"
        end
        before = failure
    end
end

function proxy.generate()
    if ngx.req.get_method() ~= "POST" then
        return ngx.exec "@passed_on"
    end
    local body = read_body()
    if not body then
        return
    end
    if not DISAGGREGATED then
        return answer_with(body)  -- as it is, for the server to read
    end
    local list, why, too_much = json.members(body)
    if list and not is_utf8(body) then
        list, why = nil, "it is not UTF-8"
    end
    if too_much then
        return refuse(413, "request_too_complex", "The proxy does not take this request: " .. why .. ".")
    elseif not list then
        why = body == "" and "it is empty" or why
        return refuse(400, "bad_request", "The request body is not a JSON object: " .. why .. ".")
    end
    return answer_with(body, list)
end

-- What nginx wrote down about a try: "1, 2, 3" -> the nth.
local function nth(text, n)
    local at = 0
    for one in (text or ""):gmatch "[^,%s]+" do
        at = at + 1
        if at == n then
            return one
        end
    end
end

local function how_it_failed(n)
    if tonumber(nth(ngx.var.upstream_bytes_sent, n) or 0) == 0 then
        return nth(ngx.var.upstream_status, n) == "504" and "connect timeout" or "unreachable"
    elseif nth(ngx.var.upstream_header_time, n) ~= "-" then
        return "refused"
    end
    return nth(ngx.var.upstream_status, n) == "504" and "timeout" or "died"
end

local function last_failure()
    local _, commas = (ngx.var.upstream_addr or ""):gsub(",", "")
    return how_it_failed(commas + 1)
end

local function end_try(role, name, work, what)
    servers.release(role, name, work)
    if what == "unreachable" or what == "connect timeout" then
        servers.fault(role, name, "it cannot be reached")
    end
end

-- Chooses the server for nginx's next try, or ends the request: one that a server has got and did
-- not refuse goes to no other.
local balancer = require "ngx.balancer"
function proxy.balance(role)
    local tries = ngx.ctx.tries
    if not tries then
        local work = servers.work(role, tonumber(ngx.var.request_length) or 0)
        tries = { names = {}, refused = 0, timeouts = 0, count = 0, work = work }
        ngx.ctx.tries = tries
    else
        local what = how_it_failed(tries.count)
        end_try(role, tries.last, tries.work, what)
        ngx.var.pd_holds = ""
        if what == "refused" then
            tries.refused = tries.refused + 1
        elseif what == "connect timeout" then
            tries.timeouts = tries.timeouts + 1
        end
        if what == "timeout" or what == "died" or tries.timeouts > RETRIES then
            ngx.var.pd_failure = what == "died" and "died" or "timeout"
            return ngx.exit(ngx.ERROR)
        end
    end
    local server = servers.pick(role, { tried = tries.names, work = tries.work })
    if not server then
        ngx.var.pd_failure = "unreachable"
        return ngx.exit(ngx.ERROR)
    end
    tries.names[server.name], tries.last, tries.count = true, server.name, tries.count + 1
    ngx.var.pd_holds = role .. " " .. tries.work .. " " .. server.name
    -- The last that may refuse does so in its own words.
    if tries.count < #servers.of[role] and (RETRIES == 0 or tries.refused < RETRIES) then
        balancer.set_more_tries(1)
    end
    local good, why = balancer.set_current_peer(server.host, server.port)
    if not good then
        ngx.log(ngx.ERR, role, " server ", server.name, ": ", why)
        return ngx.exit(ngx.ERROR)
    end
end

-- nginx got no answer from the servers of the role: an answer of our own.
function proxy.failed(role)
    local what = ngx.var.pd_failure
    if what == "" then
        if (ngx.var.upstream_addr or "") == "" then
            return refuse(500, "proxy_error", "The proxy failed; its error log says why.")
        end
        what = last_failure()
        what = what == "connect timeout" and "timeout" or what == "refused" and "died" or what
    end
    return tell(fault(role, what))
end

-- After every request: nothing is held any more, and failures are counted.
function proxy.log()
    local var = ngx.var
    -- The access log is written after this, and the client has its answer.
    for name, value in pairs(ngx.ctx.notes or {}) do
        var["pd_" .. name] = type(value) == "number" and ("%.3f"):format(value) or value
    end
    proxy.arrived()
    release "prefill"
    release "decode"
    if var.pd_name ~= "" then
        names:delete(var.pd_name)
    end
    if var.pd_holds ~= "" then
        local role, work, name = var.pd_holds:match "^(%l+) (%d+) (.+)$"
        end_try(role, name, tonumber(work), last_failure())
    end
    if tonumber(var.request_length) > KEPT_MEMORY / 8 then
        collectgarbage()  -- its text; by itself Lua would wait for several of them
    end
    local status = tonumber(var.status)
    local kind = status == 499 and "499" or status >= 500 and "5xx" or status >= 400 and "4xx"
    if kind then
        state:incr("failed " .. kind, 1, 0)
    end
end

-- Whether a server of the role answered lately; asks them, some at once, until one does.
local function one_answers(role)
    local known = state:get("ready " .. role)
    if known ~= nil then
        return known
    end
    local list, good = servers.of[role], false
    for first = 1, #list, PROBES do
        local threads = {}
        for i = first, math.min(first + PROBES - 1, #list) do
            threads[#threads + 1] = ngx.thread.spawn(servers.says_well, list[i])
        end
        while #threads > 0 and not good do
            local _, answered = ngx.thread.wait(unpack(threads))
            good = answered == true
            local running = {}
            for _, thread in ipairs(threads) do
                running[#running + 1] = coroutine.status(thread) ~= "dead" and thread or nil
            end
            threads = running
        end
        if good then
            break
        end
    end
    state:set("ready " .. role, good, READY_S)
    return good
end

-- /ready: whether requests can be served now.
function proxy.ready()
    local missing = {}
    for _, role in ipairs(DISAGGREGATED and { "prefill", "decode" } or { "decode" }) do
        if not one_answers(role) then
            missing[#missing + 1] = role
        end
    end
    if #missing > 0 then
        return refuse(503, "not_ready", "No " .. table.concat(missing, " and no ") .. " server answers.")
    end
    return say(200, '{"status":"ready"}\n')
end

-- For Prometheus: nginx's own counts under the names of nginx-prometheus-exporter, and failures.
local FAILED = "omnikit_proxy_failed_requests_total"
local POOL = "omnikit_proxy_server_in_pool"

function proxy.metrics()
    local text = ngx.location.capture("/omnikit/status").body
    -- accepts handled requests, the only line of three numbers
    local accepted, handled, requests = text:match "\n (%d+) (%d+) (%d+) "
    local lines = {}
    local function tell(kind, name, help, value)
        lines[#lines + 1] = ("# HELP %s %s\n# TYPE %s %s\n%s %s\n"):format(name, help, name, kind, name, value)
    end
    tell("gauge", "nginx_up", "Whether nginx answers", 1)
    tell("counter", "nginx_connections_accepted", "Client connections", accepted)
    tell("counter", "nginx_connections_handled", "Client connections not dropped", handled)
    tell("counter", "nginx_http_requests_total", "Client requests, also of health and metrics", requests)
    tell("gauge", "nginx_connections_active", "Client connections now", text:match "Active connections: (%d+)")
    tell("gauge", "nginx_connections_reading", "Of these, requests being read", text:match "Reading: (%d+)")
    tell("gauge", "nginx_connections_writing", "Of these, requests being answered", text:match "Writing: (%d+)")
    tell("gauge", "nginx_connections_waiting", "Of these, idle", text:match "Waiting: (%d+)")
    lines[#lines + 1] = "# HELP " .. FAILED .. " Requests that ended with this status\n# TYPE " .. FAILED .. " counter\n"
    for _, kind in ipairs { "4xx", "499", "5xx" } do  -- 499: the client went away
        lines[#lines + 1] = ('%s{kind="%s"} %d\n'):format(FAILED, kind, state:get("failed " .. kind) or 0)
    end
    lines[#lines + 1] = "# HELP " .. POOL .. " Whether a server gets requests\n# TYPE " .. POOL .. " gauge\n"
    for role, list in pairs(servers.of) do
        for _, server in ipairs(list) do
            local within = state:get("out " .. server.name) and 0 or 1
            lines[#lines + 1] = ('%s{pool="%s",server="%s"} %d\n'):format(POOL, role, server.name, within)
        end
    end
    ngx.header["Content-Type"] = "text/plain; version=0.0.4"
    ngx.print(lines)
end

return proxy
