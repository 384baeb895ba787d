// generated from configs/environments/x.yaml
// What the proxy tells Prometheus: nginx's own counts under the names of nginx-prometheus-exporter,
// and how many requests failed. Failures are counted by the size of files that nginx.conf names:
// this njs has no memory that nginx's workers share.

import fs from 'fs';

const FOLDER = "/work/run/c0";
const KINDS = ['4xx', '499', '5xx'];  // 499: the client went away

function gauge(name, help, value) {
    return `# HELP ${name} ${help}\n# TYPE ${name} gauge\n${name} ${value}\n`;
}

function counter(name, help, value) {
    return `# HELP ${name} ${help}\n# TYPE ${name} counter\n${name} ${value}\n`;
}

// A count without its file (nobody but root may look into the folder) is left out.
function failures() {
    const name = 'omnikit_proxy_failed_requests_total';
    const head = `# HELP ${name} Requests that ended with this status\n# TYPE ${name} counter\n`;
    const lines = KINDS.map((kind) => {
        try {
            const size = fs.statSync(`${FOLDER}/ended_${kind}.count`).size;
            return `${name}{kind="${kind}"} ${size}\n`;
        } catch (e) {
            return '';
        }
    }).join('');
    return lines ? head + lines : '';
}

async function show(r) {
    const status = await r.subrequest('/omnikit/status');
    // accepts handled requests, the only line of three numbers
    const sums = status.responseText.match(/^ (\d+) (\d+) (\d+) $/m);
    const active = status.responseText.match(/^Active connections: (\d+)/);
    const now = status.responseText.match(/Reading: (\d+) Writing: (\d+) Waiting: (\d+)/);
    r.headersOut['Content-Type'] = 'text/plain; version=0.0.4';
    r.return(200, gauge('nginx_up', 'Whether nginx answers', 1)
        + counter('nginx_connections_accepted', 'Client connections', sums[1])
        + counter('nginx_connections_handled', 'Client connections not dropped', sums[2])
        + counter('nginx_http_requests_total', 'Client requests, also of health and metrics', sums[3])
        + gauge('nginx_connections_active', 'Client connections now', active[1])
        + gauge('nginx_connections_reading', 'Of these, requests being read', now[1])
        + gauge('nginx_connections_writing', 'Of these, requests being answered', now[2])
        + gauge('nginx_connections_waiting', 'Of these, idle', now[3])
        + failures());
}

export default { show };
