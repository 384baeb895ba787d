// What omni-infer's modules do with a generation request (global_proxy, ngx_http_prefill_module):
// prefill with max_tokens 1, then decode with the kv_transfer_params that came back.

async function run(r) {
    let body;
    r.variables.twin_id = r.headersIn['X-Request-Id'] || r.variables.request_id;
    r.headersOut['Content-Type'] = 'application/json';
    try {
        body = JSON.parse(r.requestText);
    } catch (e) {
        r.return(400, '{"object": "error", "message": "the body is not JSON", "code": 400}');
        return;
    }
    const first = Object.assign({}, body, {max_tokens: 1, stream: false});
    delete first.stream_options;
    const there = r.variables.twin_prefill + r.uri;
    const reply = await r.subrequest(there, {method: 'POST', body: JSON.stringify(first)});
    if (reply.status < 200 || reply.status > 299) {
        r.return(reply.status, reply.responseText);
        return;
    }
    body.kv_transfer_params = JSON.parse(reply.responseText).kv_transfer_params;
    r.variables.twin_body = JSON.stringify(body);
    r.internalRedirect(`/omni_twin_decode${r.uri}`);
}

export default {run};
