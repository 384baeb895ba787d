"""Images and what starts of them, held against the release of the configuration."""

from __future__ import annotations

from typing import Any, Iterator, Mapping, Optional

from hostkit.base.errors import InputError
from hostkit.versions import judge
from hostkit.versions.judge import OLDER, Release, Verdict
from omnikit.config.config import Config
from omnikit.fleet import jobs
from omnikit.plan import containers
from omnikit.plan.types import HostPlan, Plan
from omnikit.prepare import source_steps
from omnikit.prepare.look import Look

# What is in images and containers held against the release of the configuration.


def problems(config: Config, plan: Plan, found: Look) -> list[str]:
    """What stands against starting from the images on the hosts, before anything is changed.

    What they say of themselves is looked at first; one that says nothing is looked into.
    """
    wanted = release(config)
    starting = _starting(plan, found)
    if wanted is None or not starting or laid_over(config) or accepted(config):
        return []
    verdicts = {name: seen(config, one) for name, one in found.about_images.items()}
    if any(verdict and verdict[0] == judge.UNKNOWN for verdict in verdicts.values()):
        known = {host.name: host for host in plan.hosts}
        host = known[starting[0]]  # that all hosts have the same image is another check's concern
        given = {
            "specs": list(containers.host_specs(config.settings, plan, host).values()),
            "python": config.settings.container.python,
            "packages": list(wanted["packages"]),
        }
        done = jobs.results(jobs.run(plan, config.settings, "release-image", {host.name: given}))
        for result in done.values():
            for name, one in result["images"].items():
                if name in found.about_images:
                    verdicts[name] = seen(config, found.about_images[name], one)
    against = [problem(config, verdict) for verdict in verdicts.values()]
    return [one for one in against if one is not None]


def _starting(plan: Plan, found: Look) -> list[str]:
    """Hosts where servers would be started, in the order of the plan."""
    names = {node.host for node in plan.nodes if found.changes.get(node.name) in _STARTS}
    return [host.name for host in plan.hosts if host.name in names]


_STARTS = ("start", "restart")


def check(config: Config, plan: Plan, found: Look) -> None:
    """Look where servers are to start with source of the user's. Raises InputError for a vLLM that
    lacks its patches, and for old packages in the place of the source's.
    """
    if config.settings.source.patches is None or not laid_over(config):
        return
    wanted = release(config)
    known = {host.name: host for host in plan.hosts}
    given = {
        name: {
            "packages": list(wanted["packages"]) if wanted else [],
            "dir": _code(config, known[name]),
            "patches": config.settings.source.patches,
            "places": source_steps.places(config, plan, known[name]),
        }
        for name in _starting(plan, found)
    }
    done = jobs.results(jobs.run(plan, config.settings, "release", given))
    wrong = [
        f"{place} on {host}: {what}"
        for host, result in done.items()
        for place, one in result["places"].items()
        for what in _against_looks(config, one)
    ]
    if wrong:
        raise InputError(
            "servers would not run with the source that is laid over the image:\n  "
            + "\n  ".join(wrong),
            where=str(config.origin("paths", "local_code_dir")),
            todo="copy, patch and install it: invoke sync-code, then invoke pip-install",
        )


def _against_looks(config: Config, one: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong in one place where servers run."""
    if one["unpatched"]:
        yield f"its vLLM lacks {one['unpatched']}"
    wanted = release(config)
    if wanted is not None and not accepted(config):
        rest = {k: v for k, v in wanted["packages"].items() if k not in one["source"]}
        word, said = judge.by_content({**wanted, "packages": rest}, one["packages"])
        if word == judge.OLDER:
            yield f"{said}, not from the source"


def _code(config: Config, host: HostPlan) -> Optional[str]:
    """The folder of the source on a host."""
    text = config.settings.paths.code_dir
    return host.path(text) if text else None


_SETTING = ("image", "older_than_release")
_NAME = ".".join(_SETTING)


def release(config: Config) -> Optional[Release]:
    """The release that images are held against; None where there are none, or nothing is known."""
    own = config.settings.release
    packages = {name: text for name, text in own.packages.items() if text is not None}
    if config.settings.runtime != "docker" or not (own.date or packages):
        return None
    name = config.settings.profile.omni_version
    return {"name": name, "date": own.date, "packages": packages}


def laid_over(config: Config) -> bool:
    """Whether source is copied and installed over what the image has: the install guide's way."""
    paths = config.settings.paths
    return paths.local_code_dir is not None and paths.code_dir is not None


def accepted(config: Config) -> bool:
    """Whether the user wants an image that is older than the release."""
    return config.settings.image.older_than_release == "accept"


def notes(config: Config) -> Iterator[str]:
    """What is to be known of an image that is older than the release, by its name."""
    said = _older_by_name(config)
    if said is None:
        return
    what = f"{config.origin('container', 'image')}: container.image: {_against(config, said)}"
    if laid_over(config):
        place = config.origin("paths", "local_code_dir")
        over = f"the source of paths.local_code_dir ({place}) is laid over it"
        yield f"{what}; {over}{_proxys(config)}"
    elif accepted(config):
        yield f"{what}; {_accepted(config)}"
    else:
        why = f"no source of that release is laid over it, so a deploy refuses it.{_later(config)}"
        yield f"{what}, and {why} What to do: {todo(config)}"


def refuse(config: Config) -> None:
    """Raise InputError when the image's name says that it is older than the release, unless the
    release's source is laid over it or the user accepts it.
    """
    said = _older_by_name(config)
    if said is not None and not laid_over(config) and not accepted(config):
        raise _refusal(config, said)


def seen(
    config: Config, about: Mapping[str, Any], inside: Optional[Mapping[str, Any]] = None
) -> Optional[Verdict]:
    """What an image on a host is. about: its labels, created; inside: what is in it, if looked."""
    wanted, name = release(config), config.settings.container.image
    if wanted is None or name is None:
        return None
    itself = judge.by_itself(wanted, about["labels"], about["created"])
    content = judge.by_content(wanted, inside["packages"] if inside is not None else {})
    return judge.together(itself, content, judge.by_name(wanted, name))


def problem(config: Config, verdict: Optional[Verdict]) -> Optional[str]:
    """What stands against starting from an image that was seen; None where nothing does."""
    if verdict is None or verdict[0] != OLDER or laid_over(config) or accepted(config):
        return None
    return str(_refusal(config, verdict[1]))


def _older_by_name(config: Config) -> Optional[str]:
    wanted, image = release(config), config.settings.container.image
    word, said = judge.by_name(wanted, image) if wanted and image else (None, None)
    return said if word == OLDER else None


def _against(config: Config, said: str) -> str:
    own, name = config.settings.release, config.settings.profile.omni_version
    day = f" is of {own.date}" if own.date else ""
    return f"{said}, omni-infer {name}{day} ({config.origin('release')})"


def _accepted(config: Config) -> str:
    return f"{_NAME} accepts that ({config.origin(*_SETTING)})"


def todo(config: Config) -> str:
    """What to do about an image that is older than the release."""
    return (
        "lay the release's source over it, as its install guide does (paths.local_code_dir: DIR);"
        " or name an image of the release; or have it accepted, for example when you install the"
        f" release in the containers yourself: --set {_NAME}=accept (now"
        f" {config.settings.image.older_than_release}, {config.origin(*_SETTING)})"
    )


def _refusal(config: Config, said: str) -> InputError:
    what = f"{_against(config, said)}, and no source of that release is laid over the image."
    return config.error(f"{what}{_later(config)}", "container", "image", todo=todo(config))


def _since(config: Config) -> dict[str, str]:
    """What is newer than the image, by the date in its tag."""
    day = judge.tag_date(config.settings.container.image or "")
    since = config.settings.release.since
    return {n: at for n, at in since.items() if day is not None and judge.is_before(day, at)}


def _later(config: Config) -> str:
    names = [f"{name} ({at})" for name, at in _since(config).items()]
    return f" Later than the image: {', '.join(names)}." if names else ""


def _proxys(config: Config) -> str:
    """What a source cannot bring: the proxy's program is the image's."""
    proxy, since = config.settings.proxy, _since(config)
    used = dict.fromkeys((proxy.prefill_balance, proxy.decode_balance))
    names = [f"{name} ({since[name]})" for name in used if name in since]
    if not names or proxy.kind != "omni-nginx" or config.settings.topology.proxy is None:
        return ""
    return f", but the proxy's nginx is the image's, which is older than {', '.join(names)}"
