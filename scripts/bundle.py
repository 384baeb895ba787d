#!/usr/bin/env python3
"""Make a bundle for a site without internet: an environment, and all that its deploy needs.

Runs on this machine, which has what it fetches: wheels of the toolkit, engine and proxy, the image
where servers run in containers. Weights stay where they are, their SHA-256 go along. Changes only
--out, a new folder; equal input gives equal bytes. There: bash install.sh --help.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterable, Optional

import write_sbom

from hostkit.base import run, writing
from hostkit.base.errors import ActionError, InputError
from hostkit.base.log import say, size_text
from hostkit.files import regular
from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script

if TYPE_CHECKING:
    from omnikit.config.config import Config
    from omnikit.plan.types import Plan

ROOT = Path(__file__).resolve().parents[1]
LOCKS = {part: ROOT / name for part, name in write_sbom.LOCKS.items()}
SUMS, SIGNATURE = "SHA256SUMS", "SHA256SUMS.sig"
# Of the machine on the other side, as settings: see configs/defaults.yaml.
_WHEELS, _IMAGES = "offline/wheels", "offline/images"
_EPOCH = 315532800  # 1980-01-01, the first day that all formats of archives know


def body(given: argparse.Namespace) -> int:
    """Make it beside, sign it, rename it."""
    from omnikit.topology.topology import make_plan

    config = load_config(given)
    plan = make_plan(config)
    out = given.out.absolute()
    if out.exists():
        raise InputError("is there already.", where=f"--out {out}", todo="name a new folder")
    public = public_key(given.key) if given.key else None
    parts = wanted(config, plan)
    if given.dry_run:
        print("\n".join(parts))
        return 0
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        fill(work, config, plan, given)
        write_sums(work)
        if public is not None:
            (work / "key.pem").write_bytes(public)
            write_sums(work)
            sign(work, given.key)
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    size = sum(path.stat().st_size for path in files_of(out))
    say(f"{out}: {size_text(size)}; it holds {', '.join(parts)}")
    say("on the other side: " + ("--key, and your public key" if public else "--digest, and this:"))
    print(regular.sha256(out / SUMS))
    return 0


def wanted(config: Config, plan: Plan) -> list[str]:
    """What goes into the bundle besides configuration and lists, as words."""
    settings = config.settings
    parts = ["the toolkit", "wheels of the toolkit"]
    if settings.runtime == "docker":
        return [*parts, f"the image {settings.container.image}"]
    if plan.local and settings.engine.venv and settings.engine.requirements:
        parts.append("wheels of the engine")
    if plan.local and plan.proxy and settings.proxy.kind in ("auto", "vllm-router"):
        parts.append("wheels of vllm-router")
    return parts


def fill(work: Path, config: Config, plan: Plan, given: argparse.Namespace) -> None:
    """All files but sums and signature."""
    parts = wanted(config, plan)
    for name in ("wheels", "images"):
        (work / name).mkdir()
    fetch(work / "wheels", LOCKS["toolkit"], "the toolkit")
    if "wheels of the engine" in parts:
        engine_wheels(work / "wheels", config)
    if "wheels of vllm-router" in parts:
        fetch(work / "wheels", LOCKS["vllm-router"], "vllm-router")
    image = None
    if config.settings.runtime == "docker":
        image = add_image(work / "images", config, plan, given.archive)
    write_configuration(work / "configuration", config, given, image)
    write_toolkit(work / "toolkit.tar")
    (work / "weights.sha256").write_text(weights(config, given.weights), encoding="utf-8")
    bill = json.dumps(write_sbom.bill(config.settings), indent=1)
    (work / "sbom.json").write_text(f"{bill}\n", encoding="utf-8")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    (work / "target").write_text(f"{version} {platform.machine()} {config.environment}\n", "utf-8")
    shutil.copyfile(ROOT / "scripts" / "install_bundle.sh", work / "install.sh")
    (work / "install.sh").chmod(0o755)


def fetch(folder: Path, lock: Path, what: str) -> None:
    """The wheels of a lock file for this Python and this machine. Raises ActionError."""
    from omnikit.engine import install
    from omnikit.engine.progress import Progress

    # pip reads the conditions of the lock file, our reader does not: the file itself goes to it.
    words = [sys.executable, "-m", "pip", "download", "--require-hashes", "--no-deps"]
    words += ["--only-binary=:all:", "--progress-bar=off", f"--dest={folder}", "-r", str(lock)]
    progress = Progress(say, 5.0, "bundle")
    progress.step(f"fetching wheels of {what}")
    with progress.watched():
        code = run.stream(words, progress.heard, env=install.ENV)
    if code != 0:
        raise install.failure(progress.lines, f"fetching wheels of {what}")


def engine_wheels(folder: Path, config: Config) -> None:
    """Those of the engine, which is for a Python of its own."""
    from omnikit.config.layers import resolve_path
    from omnikit.engine.progress import Progress
    from omnikit.images import recipes

    engine = config.settings.engine
    pins = recipes.needed(Path(resolve_path(str(engine.requirements), True)))
    target = recipes.For(recipes.PYTHON, platform.machine())
    kept = ROOT / "build" / "wheels" / "engine"  # as large as they are they are fetched once
    made = recipes.fetch(kept, pins, target, engine.torch_index, Progress(say, 5.0, "bundle"))
    for path in made.values():
        shutil.copyfile(path, folder / path.name)


def add_image(folder: Path, config: Config, plan: Plan, archive: Optional[Path]) -> str:
    """The archive of the servers' image, in fixed order and with fixed times; its name."""
    from hostkit.containers import image_archive
    from omnikit.images import build, pull

    image = pull.wanted(config, None)
    made = folder / "exported.tar"
    if archive is None:
        if config.settings.container.build and plan.local:
            build.ensure(config, say)
        pull.export(config, image, made, plan)
        archive = made
    pull.loading(config, archive, image)
    name = f"{image.rpartition('/')[2].replace(':', '-')}.tar"
    with tarfile.open(archive, "r:") as old, tarfile.open(folder / name, "w") as new:
        for member in sorted(old.getmembers(), key=lambda one: one.name):
            new.addfile(fixed(member), old.extractfile(member) if member.isreg() else None)
    for path in (made, image_archive.beside(made)):
        path.unlink(missing_ok=True)
    sum_line = f"{image_archive.checksum(folder / name)}  {name}\n"
    image_archive.beside(folder / name).write_text(sum_line, encoding="utf-8")
    return name


def fixed(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """An entry of an archive without whose it was, and when."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = _EPOCH
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    member.pax_headers = {}
    return member


def write_toolkit(path: Path) -> None:
    """The toolkit's own files, without what a user keeps beside them."""
    from omnikit.images import recipes

    with tarfile.open(path, "w") as archive:
        for name, file in sorted(recipes.toolkit_files().items()):
            archive.add(file, name, filter=fixed)


def write_configuration(
    folder: Path, config: Config, given: argparse.Namespace, image: Optional[str]
) -> None:
    """What users say, as the two files on the other side that say the same there."""
    from omnikit.config import config as config_config
    from omnikit.config import report
    from omnikit.config.layers import own_file

    environment, site = config_config.own(given.environment, given.config, given.set)
    offline: dict[str, Any] = {"distribution": {"wheels": _WHEELS}}
    if image is not None:
        offline["image"] = {"archive": f"{_IMAGES}/{image}"}
        offline["container"] = {"image": config.settings.container.image, "build": None}
    files = {
        f"environments/{own_file(config.environment).name}": report.plain(environment),
        "bundle.local.yaml": _over(report.plain(site), offline),
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(report.as_yaml(content), encoding="utf-8")


def _over(low: Any, high: Any) -> Any:
    if not (isinstance(low, dict) and isinstance(high, dict)):
        return high
    return {**low, **{key: _over(low.get(key), value) for key, value in high.items()}}


def weights(config: Config, folder: Optional[Path]) -> str:
    """SHA-256 of the model's files, as sha256sum -c reads them; hashed here where no list is."""
    from hostkit.spread import folder as weights_folder
    from omnikit.config.layers import resolve_path

    if config.settings.model.generate_seed is not None:
        return ""  # it is made on the other side
    place = folder or Path(resolve_path(config.settings.model.path, True))
    if place.is_file():
        text = regular.text(place)
        if not re.fullmatch(r"([0-9a-f]{64} [ *][^\n]+\n)+", text):
            raise InputError("is no output of sha256sum.", where=f"--weights {place}")
        return text
    if not place.is_dir():
        raise InputError(
            f"the weights are not here: there is no folder {place}.",
            where="--weights" if folder else str(config.origin("model", "path")),
            todo="name where they lie on this machine: --weights FOLDER; or what sha256sum said of"
            " them on a host: --weights FILE",
        )
    _, listed = weights_folder.listed(place, str(ROOT / "build" / "control"))
    lines = []
    for name, known in sorted(listed.items()):
        kind, _, value = known.partition(":")
        if kind != "sha256":
            say(f"hashing {place / name}")
            value = regular.sha256(place / name)
        lines.append(f"{value}  {name}\n")
    return "".join(lines)


def files_of(folder: Path) -> Iterable[Path]:
    """Every file of a bundle, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def write_sums(work: Path) -> None:
    """The list that everything else is held against, as sha256sum reads it."""
    lines = [
        f"{regular.sha256(path)}  {path.relative_to(work)}\n"
        for path in files_of(work)
        if path.name not in (SUMS, SIGNATURE)
    ]
    writing.write_atomically(work / SUMS, "".join(sorted(lines, key=lambda line: line[66:])))


def public_key(key: Path) -> bytes:
    """The public half of an RSA key, whose signatures of the same bytes are the same, and which
    every OpenSSL verifies. Raises InputError.
    """
    todo = "make one: openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out KEY.pem"
    if not key.is_file():
        raise InputError("there is no such key.", where=f"--key {key}", todo=todo)
    told = run.run(["openssl", "rsa", "-in", key, "-pubout"], check=False)
    if told.code != 0:
        raise InputError(
            f"this is no private RSA key that openssl can read: {told.tail}",
            where=f"--key {key}",
            todo=todo,
        )
    return told.out.encode()


def sign(work: Path, key: Path) -> None:
    """Sign the list. Raises ActionError."""
    done = run.run(
        ["openssl", "dgst", "-sha256", "-sign", key, "-out", work / SIGNATURE, work / SUMS],
        check=False,
    )
    if done.code != 0:
        raise ActionError(f"the bundle could not be signed: {done.tail}", where=f"--key {key}")


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    made.add_argument("--out", type=Path, metavar="FOLDER", required=True, help="a new folder")
    made.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="private RSA key (PEM) to sign with; without: its digest has to be told",
    )
    made.add_argument(
        "--archive",
        type=Path,
        metavar="FILE",
        help="take the image from here (pull-image --export), where this machine has no engine",
    )
    made.add_argument(
        "--weights",
        type=Path,
        metavar="PLACE",
        help="folder of the model on this machine, or a file that sha256sum wrote of it elsewhere"
        " (default: model.path)",
    )
    add(made, dry_run="show what the bundle would hold")
    add_config(made)


main = Script(
    __doc__,
    body,
    arguments,
    example="scripts/bundle.py -e local --out build/bundle --key our-private.pem",
)


if __name__ == "__main__":
    sys.exit(main())
