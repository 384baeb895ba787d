-- generated from local
-- The members of a JSON object, as places in its text: requests are edited as bytes and never
-- parsed and printed again, so numbers beyond 2^53, depth and spelling stay as the client sent
-- them. Strings and brackets are jumped over by libc's own searches; what is wrong deeper inside is
-- for the server to refuse. Depth, members and steps are bounded, so no text holds a worker up.

local ffi = require "ffi"
local find, sub, byte = string.find, string.sub, string.byte

ffi.cdef "size_t strcspn(const char *text, const char *stop);"

local MAX_MEMBERS = 1000  -- of the object itself
local MAX_DEPTH = 512  -- Python's own reader gives up at about twice that
local MAX_STEPS = 1000000  -- strings, quotes in strings and brackets together: 0.1 s at worst
local LONGEST_WORD = 512  -- a number, true, false or null
local LONGEST_PIECE = 65536
local LONGEST_NAME = 512  -- a longer key, however it is spelt, is none that matters here

local QUOTE, BACKSLASH, COMMA, COLON = 0x22, 0x5c, 0x2c, 0x3a
local OPEN, CLOSE, OPEN_LIST, CLOSE_LIST = 0x7b, 0x7d, 0x5b, 0x5d
local ESCAPES = { ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }
local WORDS = { ["true"] = true, ["false"] = true, null = true }

-- The faults of a text that a server might like but that is too much for the proxy.
local TOO_MUCH = {
    depth = "it is nested deeper than " .. MAX_DEPTH .. " levels",
    members = "it has more than " .. MAX_MEMBERS .. " members",
    steps = "it has more than " .. MAX_STEPS .. " strings, quotes and brackets",
}

local steps = 0

local function fail(why)
    error({ why = why, too_much = false }, 0)
end

local function step()
    steps = steps + 1
    if steps > MAX_STEPS then
        error({ why = TOO_MUCH.steps, too_much = true }, 0)
    end
end

-- Places count from 1, as Lua's do; a place behind the end has no byte (nil).
local function skip_space(text, at)
    local c = byte(text, at)
    while c == 0x20 or c == 0x0a or c == 0x0d or c == 0x09 do
        at = at + 1
        c = byte(text, at)
    end
    return at
end

-- text[at] is an opening quote; gives the place after the closing one.
local function skip_string(text, at)
    local first = at
    while true do
        step()
        at = find(text, '"', at + 1, true)
        if not at then
            fail "a string has no end"
        end
        local before = at
        while byte(text, before - 1) == BACKSLASH and before - 1 > first do
            before = before - 1
        end
        if (at - before) % 2 == 0 then
            return at + 1
        end
    end
end

-- text[at] is an opening bracket; gives the place after the closing one, and how many strings and
-- brackets it has as elements.
local function skip_nested(text, at)
    local bytes = ffi.cast("const char *", text)
    local size, depth, elements = #text, 0, 0
    repeat
        step()
        at = at + tonumber(ffi.C.strcspn(bytes + at - 1, '"[]{}'))
        if at > size then
            fail "a bracket is not closed"
        end
        local mark = byte(text, at)
        if mark == QUOTE then
            elements = elements + (depth == 1 and 1 or 0)
            at = skip_string(text, at)
        else
            if mark == OPEN or mark == OPEN_LIST then
                elements = elements + (depth == 1 and 1 or 0)
                depth = depth + 1
                if depth > MAX_DEPTH then
                    error({ why = TOO_MUCH.depth, too_much = true }, 0)
                end
            elseif mark == CLOSE or mark == CLOSE_LIST then
                depth = depth - 1
            else
                fail "it has a zero byte"
            end
            at = at + 1
        end
    until depth == 0
    return at, elements
end

local function is_number(word)
    local whole, rest = word:match "^-?(%d+)(.*)$"
    if not whole or (#whole > 1 and byte(whole) == 0x30) then
        return false
    end
    rest = rest:gsub("^%.%d+", "", 1)
    return rest == "" or find(rest, "^[eE][+-]?%d+$") ~= nil
end

local function skip_value(text, at)
    local first = byte(text, at)
    if first == QUOTE then
        return skip_string(text, at)
    elseif first == OPEN or first == OPEN_LIST then
        return skip_nested(text, at)
    end
    local word = sub(text, at, at + LONGEST_WORD):match "^([^,}%s]+)[,}%s]"
    if not word or not (WORDS[word] or is_number(word)) then
        fail "a value is not JSON"
    end
    return at + #word
end

-- A key with escapes, as JSON means it; only what is ASCII has to be told apart here.
local function unescaped(key)
    local at, parts = 1, {}
    while true do
        local found = find(key, "\\", at, true)
        parts[#parts + 1] = sub(key, at, (found or 0) - 1)
        if not found then
            return table.concat(parts)
        end
        local letter = sub(key, found + 1, found + 1)
        local code = letter == "u" and key:match("^%x%x%x%x", found + 2)
        if not (code or ESCAPES[letter]) then
            fail "a key is not JSON"
        end
        local number = code and tonumber(code, 16)
        parts[#parts + 1] = ESCAPES[letter] or (number < 128 and string.char(number) or "?")
        at = found + (code and 6 or 2)
    end
end

local function walk(text)
    local found = {}
    local at = skip_space(text, 1)
    if byte(text, at) ~= OPEN then
        fail "it is not a JSON object"
    end
    at = at + 1
    local first = skip_space(text, at)
    if byte(text, first) == CLOSE then
        at = first
    else
        at = at - 1
        repeat
            local start = at + 1
            local key = skip_space(text, start)
            if byte(text, key) ~= QUOTE then
                fail "a key is not a string"
            end
            local key_end = skip_string(text, key)
            local colon = skip_space(text, key_end)
            if byte(text, colon) ~= COLON then
                fail "a key has no value"
            end
            local value = skip_space(text, colon + 1)
            local value_end, elements = skip_value(text, value)
            at = skip_space(text, value_end)
            local name = sub(text, key + 1, key_end - 2)
            if #name <= LONGEST_NAME and find(name, "\\", 1, true) then
                name = unescaped(name)
            end
            if #found == MAX_MEMBERS then
                error({ why = TOO_MUCH.members, too_much = true }, 0)
            end
            found[#found + 1] = {
                name = name, start = start, stop = at - 1,
                value = value, value_stop = value_end - 1, elements = elements,
            }
        until byte(text, at) ~= COMMA
    end
    if byte(text, at) ~= CLOSE or skip_space(text, at + 1) <= #text then
        fail "the object does not end where it should"
    end
    return found
end

local json = {}

-- The members of the object that text is: a list of {name, start, stop (places of the whole, with
-- its space), value, value_stop, elements (of brackets: strings and brackets in it)}. Otherwise
-- nil, why, and whether it is too much rather than wrong.
function json.members(text)
    steps = 0
    local good, found = pcall(walk, text)
    if good then
        return found
    elseif type(found) ~= "table" then
        error(found, 0)
    end
    return nil, found.why, found.too_much
end

-- Of equal keys the last one counts, as for the servers.
function json.last(list, name)
    for i = #list, 1, -1 do
        if list[i].name == name then
            return list[i]
        end
    end
end

-- The value of a member as it stands, or nil.
function json.value(text, list, name)
    local member = json.last(list, name)
    return member and sub(text, member.value, member.value_stop)
end

-- The text of a member, cut: LuaJIT keeps memory for strings of this size, but fetches it from the
-- kernel, page by page, for longer ones.
local function add_member(pieces, text, member)
    if not member.pieces then
        member.pieces = {}
        for at = member.start, member.stop, LONGEST_PIECE do
            member.pieces[#member.pieces + 1] = sub(text, at, math.min(at + LONGEST_PIECE - 1, member.stop))
        end
    end
    for _, piece in ipairs(member.pieces) do
        pieces[#pieces + 1] = piece
    end
end

-- Pieces of text that together are the object without the members in drop (a set of names) and with
-- those in add (a list of JSON texts, "name":value) put first.
function json.edited(text, list, drop, add)
    local pieces = { "{", table.concat(add, ",") }
    local comma = #add > 0
    for _, member in ipairs(list) do
        if not drop[member.name] then
            if comma then
                pieces[#pieces + 1] = ","
            end
            comma = true
            add_member(pieces, text, member)
        end
    end
    pieces[#pieces + 1] = "}"
    return pieces
end

return json
