// generated from local
// What the proxy does with one generation request: prefill with a shortened copy, then decode with
// the original and the hand-over. nginx does the network's part (nginx.conf beside this file).
//
// Requests are edited as bytes, member by member, and never parsed and printed again: numbers
// beyond 2^53, depth and spelling stay as the client sent them. What is wrong deeper inside a
// request is for the prefill server to refuse.

const KV_PARAMS = "{\"do_remote_decode\": true, \"do_remote_prefill\": false, \"remote_engine_id\": null, \"remote_block_ids\": null, \"remote_host\": null, \"remote_port\": null}";  // kv_transfer_params of the prefill request, as JSON text

const QUOTE = 0x22, BACKSLASH = 0x5c, COMMA = 0x2c, COLON = 0x3a;
const OPEN = 0x7b, CLOSE = 0x7d, OPEN_LIST = 0x5b, CLOSE_LIST = 0x5d;
const MARKS = [QUOTE, OPEN, OPEN_LIST, CLOSE, CLOSE_LIST];

function skipSpace(bytes, at) {
    while (bytes[at] === 0x20 || bytes[at] === 0x0a || bytes[at] === 0x0d || bytes[at] === 0x09) {
        at++;
    }
    return at;
}

// bytes[at] is an opening quote; gives the place after the closing one.
function skipString(bytes, at) {
    for (;;) {
        at = bytes.indexOf(QUOTE, at + 1);
        if (at < 0) {
            throw new Error('a string has no end');
        }
        let before = at;
        while (bytes[before - 1] === BACKSLASH) {
            before--;
        }
        if ((at - before) % 2 === 0) {
            return at + 1;
        }
    }
}

// bytes[at] is an opening bracket; gives the place after the closing one. It jumps from mark to
// mark with indexOf: long lists of token ids would take too long byte by byte.
function skipNested(bytes, at) {
    const next = [-1, -1, -1, -1, -1];
    let depth = 0;
    do {
        let nearest = bytes.length;
        let mark = 0;
        for (let i = 0; i < MARKS.length; i++) {
            if (next[i] < at) {
                const found = bytes.indexOf(MARKS[i], at);
                next[i] = found < 0 ? bytes.length : found;
            }
            if (next[i] < nearest) {
                nearest = next[i];
                mark = MARKS[i];
            }
        }
        if (nearest === bytes.length) {
            throw new Error('a bracket is not closed');
        }
        if (mark === QUOTE) {
            at = skipString(bytes, nearest);
        } else {
            depth += mark === OPEN || mark === OPEN_LIST ? 1 : -1;
            at = nearest + 1;
        }
    } while (depth > 0);
    return at;
}

function skipValue(bytes, at) {
    const first = bytes[at];
    if (first === QUOTE) {
        return skipString(bytes, at);
    }
    if (first === OPEN || first === OPEN_LIST) {
        return skipNested(bytes, at);
    }
    let end = at;
    while (end < bytes.length && bytes[end] !== COMMA && bytes[end] !== CLOSE) {
        end++;
    }
    try {
        JSON.parse(bytes.slice(at, end).toString());
    } catch (e) {
        throw new Error('a value is not JSON');
    }
    return end;
}

// The members of the object that bytes is: [{name, text (as it stands, with its space), value, end
// (places of the value)}]. Turning a long prompt into text is what costs time: it is done once.
function members(bytes) {
    const found = [];
    let at = skipSpace(bytes, 0);
    if (bytes[at] !== OPEN) {
        throw new Error('it is not a JSON object');
    }
    at++;
    if (bytes[skipSpace(bytes, at)] === CLOSE) {
        at = skipSpace(bytes, at);
    } else {
        do {
            const start = at;
            const key = skipSpace(bytes, start);
            if (bytes[key] !== QUOTE) {
                throw new Error('a key is not a string');
            }
            const keyEnd = skipString(bytes, key);
            const colon = skipSpace(bytes, keyEnd);
            if (bytes[colon] !== COLON) {
                throw new Error('a key has no value');
            }
            const value = skipSpace(bytes, colon + 1);
            const end = skipValue(bytes, value);
            at = skipSpace(bytes, end);
            let name;
            try {
                name = JSON.parse(bytes.slice(key, keyEnd).toString());
            } catch (e) {
                throw new Error('a key is not JSON');
            }
            const text = bytes.slice(start, at).toString();
            found.push({ name: name, text: text, value: value, end: end });
        } while (bytes[at] === COMMA && at++ >= 0);
    }
    if (bytes[at] !== CLOSE || skipSpace(bytes, at + 1) !== bytes.length) {
        throw new Error('the object does not end where it should');
    }
    return found;
}

function valueOf(bytes, list, name) {
    const all = list.filter((one) => one.name === name);
    if (all.length === 0) {
        return undefined;
    }
    const last = all[all.length - 1];  // of equal keys, the last one counts
    return bytes.slice(last.value, last.end).toString().trim();
}

// The object with the members in drop taken out and those in add (JSON texts by name) put in.
function edited(list, drop, add) {
    const kept = list.filter((one) => !drop.includes(one.name) && add[one.name] === undefined);
    const added = Object.keys(add).map((name) => JSON.stringify(name) + ':' + add[name]);
    return '{' + added.concat(kept.map((one) => one.text)).join(',') + '}';
}

function prefillBody(bytes, list) {
    const add = { max_tokens: '1', stream: 'false' };
    if (valueOf(bytes, list, 'max_completion_tokens') !== undefined) {
        add.max_completion_tokens = '1';
    }
    if (Number(valueOf(bytes, list, 'min_tokens')) > 1) {
        add.min_tokens = '1';
    }
    if (KV_PARAMS !== null) {
        add.kv_transfer_params = KV_PARAMS;
    }
    return edited(list, ['stream_options', 'kv_transfer_params'], add);
}

function answer(r, status, text) {
    r.headersOut['Content-Type'] = 'application/json';
    r.return(status, text);
}

function refuse(r, status, type, message) {
    answer(r, status, JSON.stringify({ error: { message: message, type: type, code: status } }) + '\n');
}

function parsed(bytes) {
    try {
        return members(bytes);
    } catch (e) {
        return null;
    }
}

// The prefill server did not take the request: the words of the answer where they are JSON (nginx's
// own, for an unreachable server, are: nginx.conf says so), ours otherwise.
function refusedByPrefill(r, reply, list) {
    const status = reply.status;
    if (list !== null && status >= 400) {
        ['Retry-After', 'WWW-Authenticate'].forEach((name) => {
            if (reply.headersOut[name]) {
                r.headersOut[name] = reply.headersOut[name];
            }
        });
        return answer(r, status, reply.responseText);
    }
    return refuse(r, status >= 400 ? status : 502, 'prefill_error',
                  'The prefill server answered with status ' + status + ' and no JSON.');
}

async function generate(r) {
    if (r.method !== 'POST') {
        r.internalRedirect('@passed_on');
        return;
    }
    const body = r.requestBuffer;
    let list;
    try {
        if (body === undefined) {
            throw new Error('it is empty');
        }
        list = members(body);
        // Bytes that are no UTF-8 became this sign. Only then the slow and certain look is needed.
        if (list.some((one) => one.text.includes('\ufffd'))) {
            new TextDecoder('utf-8', { fatal: true }).decode(body);
        }
    } catch (e) {
        const why = e instanceof TypeError ? 'it is not UTF-8' : e.message;
        refuse(r, 400, 'bad_request', 'The request body is not a JSON object: ' + why + '.');
        return;
    }

    const query = r.variables.args || '';
    r.variables.pd_prefill_body = prefillBody(body, list);
    const reply = await r.subrequest('/prefill' + r.uri, { method: 'POST', args: query });
    r.variables.pd_prefill = reply.variables.upstream_addr || '';
    r.variables.pd_prefill_status = reply.variables.upstream_status || '';
    r.variables.pd_prefill_time = reply.variables.upstream_response_time || '';
    const answered = parsed(reply.responseBuffer || Buffer.from(''));
    if (reply.status < 200 || reply.status >= 300 || answered === null) {
        refusedByPrefill(r, reply, answered);
        return;
    }

    // What a client sends as kv_transfer_params never reaches a server.
    const handover = valueOf(reply.responseBuffer, answered, 'kv_transfer_params');
    const known = handover !== undefined && handover !== 'null';
    r.variables.pd_handover = known ? 'yes' : 'no';
    if (!known) {
        r.warn('prefill gave no kv_transfer_params: decode computes the prompt again');
    }
    r.variables.pd_decode_body = known
        ? edited(list, [], { kv_transfer_params: handover })
        : edited(list, ['kv_transfer_params'], {});
    r.internalRedirect('/decode' + r.uri + (query ? '?' + query : ''));
}

export default { generate };
