"""What a deployment needs on this machine before it starts: engine, model, proxy software."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping

from hostkit.files import regular
from omnikit.config.config import Config
from omnikit.config.layers import resolve_path, shown_path
from omnikit.engine import install as engine_install
from omnikit.engine import pins as engine_pins
from omnikit.plan.types import Plan
from omnikit.proxy import spec

Say = Callable[[str], None]


@dataclass(frozen=True)
class Found:
    """inputs: fingerprints of engine and model; proxy: the installed kind and its programs."""

    inputs: Mapping[str, str]
    proxy: Mapping[str, Any]


def look(config: Config, plan: Plan) -> Found:
    """What is there now, without installing anything; stands in for what is not there."""

    inputs = {"engine": _engine_hash(config), "model": _model_hash(config)}
    if plan.proxy is None:
        return Found(inputs, {})
    return Found(inputs, _proxy_software(config, plan))


def _proxy_software(config: Config, plan: Plan) -> dict[str, Any]:
    """Kind and programs of the proxy: what is here, or what is configured for other hosts."""
    from omnikit.proxy import install as proxy_install

    settings = config.settings.proxy
    kind = settings.kind
    if config.settings.runtime == "docker":
        return _proxy_in_image(config)
    venv = str(_local(settings.venv)) if settings.venv else None
    if plan.local and kind in ("auto", "nginx-lua"):
        nginx = proxy_install.find(settings.nginx, settings.modules_dir)
        if nginx is not None:
            return {"kind": "nginx-lua", "nginx": nginx.path, "modules_dir": nginx.modules_dir}
    if plan.local and kind == "auto" and venv and proxy_install.find_router(Path(venv)):
        kind = "vllm-router"
    return {"kind": "nginx-lua" if kind == "auto" else kind, "venv": venv}


def _proxy_in_image(config: Config) -> dict[str, Any]:
    """The proxy of the image: Debian's places, which our own images have, unless settings say."""
    settings = config.settings.proxy
    if settings.kind in spec.OMNI_KINDS:
        return {"kind": settings.kind}
    if settings.kind == "vllm-router":
        return {"kind": "vllm-router", "venv": settings.venv}
    return {
        "kind": "nginx-lua",
        "nginx": settings.nginx or spec.NGINX_PLACES[0],
        "modules_dir": settings.modules_dir or spec.MODULE_PLACES[0],
    }


def ensure(config: Config, plan: Plan, tell: Say) -> Found:
    """Install engine and proxy and make the model where they are missing; say what is done."""
    if config.settings.runtime == "docker":
        _ensure_image(config, plan, tell)
    if plan.local:
        if config.settings.runtime == "process":
            _ensure_engine(config, tell)
        _ensure_model(config, tell)
        if plan.proxy is not None and not plan.proxy.container:
            _ensure_proxy(config, tell)
    return look(config, plan)


def missing(config: Config, plan: Plan) -> list[str]:
    """What ensure would install or make, as text. Changes nothing."""
    if not plan.local:
        return []
    from omnikit.engine import tiny_model
    from omnikit.proxy import install as proxy_install

    settings = config.settings
    steps = []
    if settings.engine.venv and settings.engine.requirements and settings.runtime == "process":
        venv, pins = _local(settings.engine.venv), _local(settings.engine.requirements)
        if engine_pins.check(venv, pins).state != "ready":
            steps.append(f"install the engine into {venv} ({shown_path(pins)})")
    if settings.model.generate_seed is not None:
        path = _local(settings.model.path)
        if tiny_model.status(path, settings.model.generate_seed).state != "unchanged":
            steps.append(f"make the model {path}")
    if (
        plan.proxy is not None
        and not plan.proxy.container
        and proxy_install.find(settings.proxy.nginx, settings.proxy.modules_dir) is None
    ):
        steps.append("install the proxy: nginx with Lua (as root), else vllm-router")
    return steps


def _local(path: str) -> Path:
    return Path(resolve_path(path, True))


def _engine_hash(config: Config) -> str:
    requirements = config.settings.engine.requirements
    if not requirements or config.settings.runtime == "docker":
        return ""  # an image that changed is a difference of the container
    try:
        return hashlib.sha256(regular.data(_local(requirements))).hexdigest()
    except OSError as error:
        said = f"{_local(requirements)} cannot be read: {error.strerror}."
        raise config.error(said, "engine", "requirements") from error


def _model_hash(config: Config) -> str:
    seed = config.settings.model.generate_seed
    if seed is None:
        return ""
    from omnikit.engine import tiny_model

    return f"tiny {tiny_model.FORMAT} seed {seed}"


def _engine_options(config: Config) -> engine_install.Options:
    engine = config.settings.engine
    return engine_install.Options(
        python=engine.python,
        torch_index=engine.torch_index,
        disk_mib=engine.install_disk_mib,
    )


def _ensure_image(config: Config, plan: Plan, tell: Say) -> None:
    """Bring the containers' image to every host: built here, or pulled."""
    if not config.settings.container.image:
        raise config.error(
            "no image is set, the servers run in containers.",
            "container",
            "image",
            todo="name one: --set container.image=REPOSITORY:TAG; or --set runtime=process",
        )
    if config.settings.container.build and plan.local:
        from omnikit.images import build

        build.ensure(config, tell)
        return
    from omnikit.fleet import jobs
    from omnikit.images import pull
    from omnikit.spread import layers

    hosts = [host.name for host in plan.hosts]
    if config.settings.image.archive:
        archive = Path(resolve_path(config.settings.image.archive, True))
        loading = pull.loading(config, archive, config.settings.container.image, whole=False)
        jobs.results(pull.load(config, plan, hosts, loading))
        return
    done = layers.bring(config, plan, hosts, config.settings.container.image, if_missing=True)
    for host, result in jobs.results(done).items():
        if result["changed"]:
            tell(f"{host}: {pull.line(result)}")


def _ensure_engine(config: Config, tell: Say) -> None:
    engine = config.settings.engine
    if not engine.venv:
        return
    if engine.requirements:
        venv, pins = _local(engine.venv), _local(engine.requirements)
        engine_install.install(venv, pins, _engine_options(config), tell)
    elif not (_local(engine.venv) / "bin" / "python").exists():
        raise config.error(
            f"there is no engine in {_local(engine.venv)}.",
            "engine",
            "venv",
            todo="install it there, or set engine.requirements so that the toolkit does",
        )


def _ensure_model(config: Config, tell: Say) -> None:
    model = config.settings.model
    path = _local(model.path)
    if model.generate_seed is None:
        if not path.is_dir():
            raise config.error(
                f"there is no model folder {path}.",
                "model",
                "path",
                todo="put the model there, or name another folder: --set model.path=…",
            )
        return
    from omnikit.engine import tiny_model

    found = tiny_model.make(path, model.generate_seed)
    if found.state != "unchanged":
        tell(f"model: made {shown_path(path)}")


def _ensure_proxy(config: Config, tell: Say) -> None:
    from omnikit.proxy import install as proxy_install

    settings = config.settings.proxy
    if settings.kind in spec.OMNI_KINDS:
        raise config.error("omni-infer's own nginx cannot run on this machine.", "proxy", "kind")
    if settings.nginx and settings.modules_dir:
        return
    done = proxy_install.install(
        settings.kind,
        _local(settings.venv) if settings.venv else None,
        dry_run=False,
        lock_timeout_s=round(settings.install_timeout_s),
        report=tell,
    )
    if done.action != "unchanged":
        tell(f"proxy: {done.action} {done.kind} ({done.why})")
