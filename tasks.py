"""Invoke tasks: one per job, each a thin front door to the script of the same job.

`invoke --list` shows them, `invoke --help TASK` the options of one. Every script runs by hand too.
"""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

from invoke import Context, Exit
from invoke import task as invoke_task
from invoke.exceptions import ThreadException

ROOT = Path(__file__).resolve().parent
# Only long options: Invoke's own choice of short ones makes -h mean something else than help.
task = partial(invoke_task, auto_shortflags=False)
LISTS = ["config", "set"]
HOSTS = [*LISTS, "host"]
_PATHS = ["env", f"PYTHONPATH={ROOT / 'scripts'}:{ROOT / 'tests' / 'kit'}"]
BENCHMARKS = ("commands", "proxy", "deploy", "sync", "fleet", "weights")
HELP = {
    "environment": "name in configs/environments, or a path (default: local)",
    "config": "site file with settings on top of the environment's (repeatable)",
    "set": "section.key=value on top of everything (repeatable)",
    "json": "print the result as JSON",
    "dry-run": "show what would be done, do nothing",
    "instance": "only this instance, for example p0 (repeatable)",
    "host": "only this host (repeatable)",
    "yes": "do not ask before something that runs is replaced",
    "replace": "also what this toolkit did not make",
}


def _help(*names: str, **more: str) -> dict[str, str]:
    """Help texts of the options that every task has, and of those named."""
    shown = {name: HELP[name] for name in ("environment", *LISTS, *names)}
    return {**shown, **{key.replace("_", "-"): text for key, text in more.items()}}


def _run(ctx: Context, *words: str) -> None:
    """Run a command; its exit status becomes ours."""
    try:
        done = ctx.run(shlex.join(words), warn=True, pty=False, hide=False, in_stream=False)
    except ThreadException as error:
        if all(issubclass(thread.type, BrokenPipeError) for thread in error.exceptions):
            raise Exit(code=141) from None  # the reader (head, less) went away
        raise
    if done is not None and done.exited:
        raise Exit(code=done.exited)


def _script(ctx: Context, name: str, *arguments: str, **options: Any) -> None:
    """Run scripts/<name> with the arguments and options that were given."""
    runner = "bash" if name.endswith(".sh") else sys.executable
    words = [runner, str(ROOT / "scripts" / name), *arguments]
    for key, value in options.items():
        flag = f"--{key.replace('_', '-')}"
        if isinstance(value, list):
            words += [f"{flag}={item}" for item in value]
        elif value is True:
            words.append(flag)
        elif value not in (None, False, ""):
            words.append(f"{flag}={value}")
    _run(ctx, *words)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """A task's options by their names, out of its local variables."""
    return {name: value for name, value in values.items() if name != "c"}


@task(
    iterable=LISTS,
    help=_help(
        "dry-run", "json", "yes",
        keep="after a failed start, stop nothing",
        tags="only these steps, for example ranktable,run_server",
        skip_tags="all but these steps",
    ),
)  # fmt: skip
def deploy(
    c, environment="", config=None, set=None, tags="", skip_tags="", dry_run=False, keep=False,
    yes=False, json=False,
):  # fmt: skip
    """Bring an environment to what its configuration says, and prove that it serves."""
    _script(c, "deploy_environment.py", **_given(locals()))


@task(iterable=LISTS, help=_help())
def serve(c, environment="colocated", config=None, set=None):
    """Start one co-located server (PD not separated) and show how to ask it."""
    _script(c, "deploy_environment.py", **_given(locals()))


@task(
    iterable=LISTS,
    help=_help(
        "json",
        commands="print every command in full",
        files="print every rendered file in full",
        live="ask every host now, over SSH too",
    ),
)
def plan(
    c, environment="", config=None, set=None, commands=False, files=False, live=False, json=False
):
    """Show what a deploy would do before it does it, and what differs from what runs."""
    _script(c, "show_plan.py", **_given(locals()))


@task(iterable=LISTS, help=_help("json"))
def releases(c, environment="", config=None, set=None, json=False):
    """Show the deployments that ended well, the newest first."""
    _script(c, "show_releases.py", **_given(locals()))


@task(
    iterable=LISTS,
    help=_help(
        "json",
        record="this one of the list, or a .jsonl file",
        list="show which records there are",
        top="steps and hosts shown",
        trace="write its trace for Perfetto to this file",
    ),
)
def timeline(
    c, environment="", config=None, set=None, record="", list=False, top=10, trace="", json=False
):
    """Show where the time of a deployment went: steps, hosts, critical path, waiting."""
    _script(c, "show_timeline.py", **_given(locals()))


@task(
    iterable=LISTS,
    help=_help(
        "dry-run", "json",
        out="the file (default build/reports/NAME.html)",
        check="check all hosts now, as check-env does",
        language="of headings: en or zh",
    ),
)  # fmt: skip
def report(
    c, environment="", config=None, set=None, out="", check=False, language="en", dry_run=False,
    json=False,
):  # fmt: skip
    """Write a report of an environment as one HTML file that needs no network."""
    _script(c, "write_report.py", **_given(locals()))


@task(
    iterable=LISTS,
    help=_help("dry-run", "json", "yes", to="number of a release", keep="stop nothing on failure"),
)
def rollback(
    c, environment="", config=None, set=None, to="", dry_run=False, keep=False, yes=False,
    json=False,
):  # fmt: skip
    """Go back to an earlier release, by default the one before the present."""
    _script(c, "rollback_environment.py", **_given(locals()))


@task(iterable=[*LISTS, "instance"], help=_help("dry-run", "json", "instance"))
def roll_prefill(
    c, environment="", config=None, set=None, instance=None, dry_run=False, json=False
):
    """Restart the prefill instances one after the other, without a failed request."""
    _script(c, "roll_prefill.py", **_given(locals()))


@task(iterable=LISTS, help=_help("json"))
def reload_proxy(c, environment="", config=None, set=None, json=False):
    """Have the running proxy take its configuration over, without losing a connection."""
    _script(c, "reload_proxy.py", **_given(locals()))


@task(
    iterable=[*HOSTS, "instance"],
    help=_help(
        "json", "host", "instance",
        since="only of the last 30m, 2h, 1d",
        max_mib="of larger files only the last so many MiB (default: logs.fetch_file_mib)",
        all="all files whole, however large",
        out="where the folder is made (default: paths.local_log_dir, else build/logs)",
    ),
)  # fmt: skip
def fetch_logs(
    c, environment="", config=None, set=None, host=None, instance=None, since="", max_mib="",
    all=False, out="", json=False,
):  # fmt: skip
    """Fetch the logs of all hosts into one folder and sum up the errors in them."""
    _script(c, "fetch_logs.py", **_given(locals()))


@task(iterable=LISTS, help=_help("json", log="read this log instead (- for standard input)"))
def doctor(c, environment="", config=None, set=None, log="", json=False):
    """Look at a deployment that failed or is slow and name likely causes, with what to do."""
    _script(c, "diagnose_deployment.py", **_given(locals()))


@task(iterable=LISTS, help=_help("dry-run", "json", "yes", logs="remove the logs as well"))
def clean_up(
    c, environment="", config=None, set=None, logs=False, yes=False, dry_run=False, json=False
):
    """Remove from the hosts what deployments left: servers, containers, files."""
    _script(c, "clean_hosts.py", **_given(locals()))


@task(iterable=LISTS, help=_help("yes"))
def run_docker(c, environment="", config=None, set=None, yes=False):
    """The deployment's step run_docker alone: the image and the containers."""
    _script(c, "deploy_environment.py", tags="run_docker", **_given(locals()))


@task(
    iterable=HOSTS,
    help=_help(
        "dry-run", "json", "host",
        verify="read all files again, on both ends",
        replace="also a folder that is no copy of ours; what is in it besides is removed",
    ),
)  # fmt: skip
def sync_code(
    c, environment="", config=None, set=None, host=None, verify=False, replace=False,
    dry_run=False, json=False,
):  # fmt: skip
    """Make the source on the hosts equal to the one here; only what differs is sent."""
    _script(c, "sync_code.py", **_given(locals()))


@task(iterable=LISTS, help=_help("yes"))
def pip_install(c, environment="", config=None, set=None, yes=False):
    """The deployment's step pip_install alone: packages of the source's copies, where needed."""
    _script(c, "deploy_environment.py", tags="pip_install", **_given(locals()))


@task(iterable=LISTS, help=_help("yes"))
def run_server(c, environment="", config=None, set=None, yes=False):
    """The deployment's step run_server alone: the servers, not the proxy."""
    _script(c, "deploy_environment.py", tags="run_server", **_given(locals()))


@task(iterable=LISTS, help=_help("yes"))
def run_proxy(c, environment="", config=None, set=None, yes=False):
    """The deployment's step run_proxy alone, with real requests at its end."""
    _script(c, "deploy_environment.py", tags="run_proxy", **_given(locals()))


@task(iterable=LISTS, help=_help("dry-run", "json"))
def unlock(c, environment="", config=None, set=None, dry_run=False, json=False):
    """Break the locks that a deployment of somebody else left on the hosts."""
    _script(c, "unlock_hosts.py", **_given(locals()))


@task(iterable=LISTS, help=_help("json", watch="again and again, until Ctrl-C"))
def status(c, environment="", config=None, set=None, watch=False, json=False):
    """Show every server's state, and whether a completion comes through."""
    _script(c, "show_status.py", **_given(locals()))


@task(iterable=[*LISTS, "instance"], help=_help("dry-run", "json", "instance"))
def stop(c, environment="", config=None, set=None, instance=None, dry_run=False, json=False):
    """End exactly what was started, also while it is being started."""
    _script(c, "stop_environment.py", **_given(locals()))


@task(iterable=LISTS, help=_help())
def restart(c, environment="", config=None, set=None):
    """Stop, then deploy."""
    stop(c, environment, config, set)
    deploy(c, environment, config, set, yes=True)


@task(
    iterable=[*LISTS, "instance"],
    help=_help("instance", lines="last lines of each", follow="go on until Ctrl-C"),
)
def logs(c, environment="", config=None, set=None, instance=None, lines=50, follow=False):
    """Print the servers' logs, or follow them."""
    _script(c, "show_logs.py", **_given(locals()))


@task(iterable=LISTS, help=_help("json"))
def smoke_test(c, environment="", config=None, set=None, json=False):
    """Send real requests through the entry and check the answers and the KV hand-over."""
    _script(c, "smoke_test.py", **_given(locals()))


@task(
    iterable=[*LISTS, "compare"],
    help=_help(
        "dry-run", "json",
        instance="this server alone, for example d0 (default: the proxy)",
        url="a server at http://HOST:PORT instead",
        model="default: model.served_name",
        tokenizer="its folder (default: model.path)",
        concurrency="requests at the same time; several, 1,4,16, are a sweep",
        rate="requests per second; several, 0.5,1,2, are a sweep",
        input="tokens of each request",
        output="tokens of each answer",
        requests="requests of each run",
        warmups="requests before the first run",
        seed="of prompts and times (default 0)",
        chat="chat completions",
        compare="an earlier result.json to be shown beside (repeatable)",
        out="where the result's folder is made (default: build/control/NAME/benchmarks)",
    ),
)  # fmt: skip
def benchmark_serving(
    c, environment="", config=None, set=None, instance="", url="", model="", tokenizer="",
    concurrency="", rate="", input="", output="", requests="", warmups="", seed="", chat=False,
    compare=None, out="", dry_run=False, json=False,
):  # fmt: skip
    """Put load on an environment and measure latencies and throughput, beside earlier results."""
    _script(c, "benchmark_serving.py", **_given(locals()))


@task(
    iterable=[*LISTS, "instance"],
    help=_help(
        "dry-run", "json", "instance",
        yes="do not ask before servers are restarted",
        role="prefill, decode, colocated or all (the default)",
        steps="engine steps that are recorded",
        token_threshold="omni-infer: begin with a step of so many tokens",
        out="where the result's folder is made (default: build/control/NAME/profiles)",
    ),
)  # fmt: skip
def profile(
    c, environment="", config=None, set=None, role="all", instance=None, steps="",
    token_threshold="", out="", yes=False, dry_run=False, json=False,
):  # fmt: skip
    """Record what chosen servers do in a few engine steps, and say where their time goes."""
    _script(c, "profile_servers.py", **_given(locals()))


@task(
    iterable=LISTS,
    help=_help(
        "dry-run", "json",
        exporter="HOST:PORT of an nginx-prometheus-exporter that speaks for the proxy",
        out="folder (default: build/control/NAME/monitoring)",
    ),
)  # fmt: skip
def metrics(
    c, environment="", config=None, set=None, exporter="", out="", dry_run=False, json=False
):
    """Write what Prometheus and Grafana need: targets, alert rules, a dashboard."""
    _script(c, "write_metrics_config.py", **_given(locals()))


@task(
    iterable=LISTS,
    help=_help(
        "json",
        origin="show where each value came from",
        changed="only what differs from the defaults",
        schema="write the JSON Schema of the settings instead",
    ),
)
def config(
    c, environment="", config=None, set=None, origin=False, changed=False, schema=False, json=False
):
    """Show the merged settings and where each came from."""
    _script(c, "show_config.py", **_given(locals()))


@task(
    iterable=["vars"],
    help={
        "file": "omni_infer_deployment.yml or .json, or an Ansible inventory",
        "vars": "playbook of omni-infer, or its variables (repeatable)",
        "release": "of omni-infer, one of configs/versions (default: v0.4.1)",
        "model": "one of configs/models",
        "out": "file to write (default: configs/environments/<its name>.yaml)",
        "force": "replace a different file",
        "dry-run": HELP["dry-run"],
        "json": HELP["json"],
    },
)
def import_config(
    c, file, vars=None, release="", model="", out="", force=False, dry_run=False, json=False
):  # fmt: skip
    """Turn a file that a user brings into an environment file of ours, with comments."""
    options = _given(locals())
    _script(c, "import_config.py", options.pop("file"), **options)


@task(iterable=LISTS, help=_help("dry-run", "json", out="folder to write to"))
def export_ansible(c, environment="", config=None, set=None, out="", dry_run=False, json=False):
    """Write an inventory and a playbook for people who live in Ansible."""
    _script(c, "export_ansible.py", **_given(locals()))


@task(
    iterable=HOSTS,
    help=_help(
        "dry-run", "json", "host", "yes",
        password_file="file whose first line is the hosts' password",
        agent="ask for no password: a key that works is there",
        fingerprints='file with the expected host keys, "HOST SHA256:…" each',
    ),
)  # fmt: skip
def setup_keys(
    c, environment="", config=None, set=None, host=None, password_file="", agent=False,
    fingerprints="", yes=False, dry_run=False, json=False,
):  # fmt: skip
    """Log in to every host by key from now on: make it, record host keys, spread it, prove it."""
    _script(c, "setup_keys.sh", **_given(locals()))


@task(iterable=HOSTS, help=_help("json", "host", all="also what is well, in full"))
def check_env(c, environment="", config=None, set=None, host=None, all=False, json=False):
    """Check all hosts side by side before anything starts, and say how to mend what is wrong."""
    _script(c, "check_env.py", **_given(locals()))


@task(iterable=LISTS, help=_help("dry-run", "json"))
def gen_ranktable(c, environment="", config=None, set=None, dry_run=False, json=False):
    """Build all rank tables of an environment from what its hosts report now."""
    _script(c, "build_ranktables.py", **_given(locals()))


@task(iterable=LISTS, help=_help("json", table="this cluster table instead of the kept one"))
def check_ranktable(c, environment="", config=None, set=None, table="", json=False):
    """Check that the plan, the rank table and what the hosts report now agree."""
    _script(c, "check_ranktable.py", **_given(locals()))


@task(
    iterable=HOSTS,
    help=_help(
        "dry-run", "json", "host",
        image="another than container.image",
        export="pull it here and write it to this file",
        from_archive="load it from this file instead of a registry",
    ),
)  # fmt: skip
def pull_image(
    c, image="", environment="", config=None, set=None, host=None, export="", from_archive="",
    dry_run=False, json=False,
):  # fmt: skip
    """Have the container image on every host: pulled, or from an archive where no registry is."""
    options = _given(locals())
    _script(c, "pull_image.sh", *filter(None, [options.pop("image")]), **options)


@task(
    iterable=[*LISTS, "build_arg"],
    help=_help(
        "dry-run", "json",
        name="cpu-engine, omni-infer, control or a folder (default: container.build)",
        tag="the image's name (default: container.image)",
        base="the image to start from",
        wheels="omni-infer: the folder with its wheels",
        build_arg="NAME=VALUE for the Dockerfile (repeatable)",
    ),
)  # fmt: skip
def build_image(
    c, name="", environment="", config=None, set=None, tag="", base="", wheels="", build_arg=None,
    dry_run=False, json=False,
):  # fmt: skip
    """Build a container image on this machine when its inputs changed."""
    options = _given(locals())
    _script(c, "build_image.py", *filter(None, [options.pop("name")]), **options)


SOURCE = {"dir": "folder of omni-infer's source", "in_container": "do it in this container"}


@task(iterable=HOSTS, help=_help("dry-run", "json", "host", **SOURCE))
def build_wheels(
    c, environment="", config=None, set=None, host=None, dir="", in_container="", dry_run=False,
    json=False,
):  # fmt: skip
    """Fetch omni-infer and vLLM and build their wheels."""
    _script(c, "build_from_source.sh", only=["fetch", "build"], **_given(locals()))


@task(iterable=HOSTS, help=_help("dry-run", "json", "host", **SOURCE))
def install_wheels(
    c, environment="", config=None, set=None, host=None, dir="", in_container="", dry_run=False,
    json=False,
):  # fmt: skip
    """Install the built wheels in place of the packages that are there."""
    _script(c, "build_from_source.sh", only=["install"], **_given(locals()))


@task(iterable=HOSTS, help=_help("json", "host", in_container=SOURCE["in_container"]))
def check_packages(
    c, environment="", config=None, set=None, host=None, in_container="", json=False
):
    """Check that omni_infer, vllm and omni_placement are installed, and in which version."""
    _script(c, "build_from_source.sh", only=["check"], **_given(locals()))


@task(iterable=HOSTS, help=_help("dry-run", "json", "host", "replace", image="IMAGE", name="NAME"))
def start_container(
    c, image="", name="", environment="", config=None, set=None, host=None, replace=False,
    dry_run=False, json=False,
):  # fmt: skip
    """Start the containers of an environment, or one by IMAGE and NAME on this machine."""
    options = _given(locals())
    words = [options.pop("image"), options.pop("name")]
    _script(c, "start_container.sh", *filter(None, words), **options)


@task(iterable=HOSTS, help=_help("dry-run", "json", "host", "replace", name="NAME"))
def stop_container(
    c, name="", environment="", config=None, set=None, host=None, replace=False, dry_run=False,
    json=False,
):  # fmt: skip
    """Stop the containers of an environment, or one by NAME here; what is in them stays."""
    options = _given(locals())
    _script(c, "stop_container.sh", *filter(None, [options.pop("name")]), **options)


@task(iterable=HOSTS, help=_help("dry-run", "json", "host", "replace", name="NAME"))
def remove_container(
    c, name="", environment="", config=None, set=None, host=None, replace=False, dry_run=False,
    json=False,
):  # fmt: skip
    """Stop and remove the containers of an environment, or one by NAME on this machine."""
    options = _given(locals())
    _script(c, "remove_container.sh", *filter(None, [options.pop("name")]), **options)


@task(help={"dry-run": HELP["dry-run"], "json": HELP["json"]})
def install_engine(c, dry_run=False, json=False):
    """Install the CPU engine (a real vLLM) into a virtual environment of its own."""
    _script(c, "install_engine.py", **_given(locals()))


@task(help={"dry-run": HELP["dry-run"], "json": HELP["json"], "out": "folder", "seed": "a number"})
def make_tiny_model(c, out="build/models/tiny-qwen2", seed=0, dry_run=False, json=False):
    """Make the tiny model that the local environment serves."""
    _script(c, "make_tiny_model.py", **_given(locals()))


@task(help={"dry-run": HELP["dry-run"], "json": HELP["json"]})
def install_proxy(c, dry_run=False, json=False):
    """Install what the proxy needs: nginx with Lua as root, else vllm-router."""
    _script(c, "install_proxy.py", **_given(locals()))


WEIGHTS = {
    "source": "original checkpoint (default: weights.source)",
    "target": "converted checkpoint (default: weights.target, else model.path)",
}


@task(
    iterable=[*LISTS, "include", "exclude"],
    help=_help(
        "dry-run",
        "json",
        source="modelscope (default), huggingface, an address, or a folder",
        repository="OWNER/NAME on that hub, for example deepseek-ai/DeepSeek-R1",
        revision="branch, tag or commit there (default: the main branch)",
        target="folder on this machine (default: weights.source, else model.path)",
        include="only files of this pattern (repeatable)",
        exclude="no files of this pattern, instead of weights.download.exclude (repeatable)",
        checksums="file as sha256sum writes it (default: what the source publishes)",
        workers="files at the same time",
        verify="read all files again",
        replace="also files that no download of ours made",
    ),
)
def download_weights(
    c,
    source="",
    repository="",
    revision="",
    target="",
    include=None,
    exclude=None,
    checksums="",
    workers="",
    verify=False,
    replace=False,
    environment="",
    config=None,
    set=None,
    dry_run=False,
    json=False,
):
    """Download a checkpoint from ModelScope, Hugging Face, an address or a folder, verified."""
    _script(c, "download_weights.py", **_given(locals()))


@task(
    iterable=LISTS,
    help=_help(
        "dry-run",
        "json",
        method="native (default: on any machine) or msmodelslim (Ascend's own tool)",
        threads="that compute (default: weights.threads, else all cores)",
        **WEIGHTS,
    ),
)
def convert_weights(
    c,
    source="",
    target="",
    method="",
    threads="",
    environment="",
    config=None,
    set=None,
    dry_run=False,
    json=False,
):
    """Convert a DeepSeek checkpoint, FP8 or bf16, to W8A8 INT8: resumable, all cores, checked."""
    _script(c, "convert_weights.py", **_given(locals()))


@task(
    iterable=LISTS,
    help=_help(
        "json",
        all="compare all numbers, not a sample",
        matrices="compared of each kind (default 8), all their scales",
        rows="whose values are compared, of each matrix (default 64)",
        loadable="have the engine load a small model of this architecture, converted",
        python="what --loadable uses (default: the engine's)",
        out="folder that gets the report as JSON and a picture",
        **WEIGHTS,
    ),
)
def verify_weights(
    c,
    source="",
    target="",
    all=False,
    matrices="",
    rows="",
    loadable=False,
    python="",
    out="",
    environment="",
    config=None,
    set=None,
    json=False,
):
    """Verify a converted checkpoint: structure, hashes, and numbers against the source's."""
    _script(c, "verify_weights.py", **_given(locals()))


CHECKPOINT = {"dir": "folder of the checkpoint", "revert": "put the originals back"}


@task(help={"dry-run": HELP["dry-run"], "json": HELP["json"], **CHECKPOINT})
def prepare_checkpoint(c, dir="", revert=False, dry_run=False, json=False):
    """Edit a downloaded DeepSeek checkpoint as msmodelslim needs it, before the conversion."""
    _script(c, "prepare_checkpoint.py", **_given(locals()))


@task(
    help={
        "dry-run": HELP["dry-run"],
        "json": HELP["json"],
        "layers": "layers of the model without MTP (default 61: DeepSeek-V3 and -R1)",
        **CHECKPOINT,
    }
)
def finish_checkpoint(c, dir="", layers="", revert=False, dry_run=False, json=False):
    """Edit what msmodelslim wrote so that it can be served, after the conversion."""
    _script(c, "finish_checkpoint.py", **_given(locals()))


@task(
    iterable=LISTS,
    help=_help(
        "dry-run", "json", source="folder of the fp8 checkpoint", target="folder that is to be made"
    ),
)  # fmt: skip
def run_msmodelslim(
    c, source="", target="", environment="", config=None, set=None, dry_run=False, json=False
):
    """Convert DeepSeek weights to W8A8 with Ascend's msmodelslim: check, edit, convert, finish."""
    _script(c, "run_msmodelslim.py", **_given(locals()))


@task()
def test(c):
    """Run all tests side by side, fast ones first. As root, installs what they need."""
    _test_needs(c)
    _pytest(c, "-m", "not slow", "--budget", "fast_s")
    _pytest(c, "-m", "slow", "--dist", "loadgroup", "--left-out-before", "--budget", "slow_s")


@task()
def test_fast(c):
    """Run the fast tests only, side by side. As root, installs what they need."""
    _test_needs(c, "--fast")
    _pytest(c, "-m", "not slow", "--budget", "fast_s")


def _pytest(c: Context, *words: str) -> None:
    _run(c, sys.executable, "-m", "pytest", "-n", "2", "--durations", "10", *words)


def _test_needs(c: Context, *words: str) -> None:
    _run(c, *_PATHS, sys.executable, str(ROOT / "tests" / "kit" / "install_needs.py"), *words)


@task()
def lint(c):
    """Check format, style, types, shell, YAML and playbooks."""
    _run(c, "bash", str(ROOT / "scripts" / "lint_all.sh"))


@task()
def docs(c):
    """Renew the manual's table of tasks, and make web pages of the manual."""
    _script(c, "docs.py")


@task(help={"upgrade": "the newest versions that pyproject.toml allows"})
def lock_dependencies(c, upgrade=False):
    """Renew the lock files: every Python package by version and check sum."""
    _script(c, "lock_dependencies.py", upgrade=upgrade)


@task(iterable=LISTS, help=_help(out="file (default: standard output)"))
def write_sbom(c, environment="", config=None, set=None, out=""):
    """Write the bill of materials (CycloneDX): packages, images and sources, with check sums."""
    _script(c, "write_sbom.py", **_given(locals()))


@task(help={"only": f"one of {', '.join(BENCHMARKS)} (default: all)"})
def bench(c, only=""):
    """Measure what the toolkit itself costs, against baselines in the same run."""
    for name in [only] if only else BENCHMARKS:
        path = ROOT / "benchmarks" / f"bench_{name}.py"
        _run(c, *_PATHS, sys.executable, str(path))
