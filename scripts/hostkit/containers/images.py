"""An image on this host: pulled, loaded from an archive, or saved into one. Three jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from hostkit.base.errors import ActionError, InputError
from hostkit.base.faults import SPACE
from hostkit.base.log import say
from hostkit.containers import engines, image_archive, image_look, image_pull
from hostkit.containers.engines import Engine
from hostkit.containers.image_look import MIB, Found, is_called, parse
from hostkit.containers.image_output import read, watch


def pull(parameters: dict[str, Any]) -> dict[str, Any]:
    """Have the image on this host; it is fetched only when it is not there.

    parameters: image, engine, mirrors, credentials (USER:PASSWORD or None), attempts, delay_s,
    free_mib; platform and elsewhere, see wanted_platform; if_missing: a tag that is here is not
    compared with the registry's; answer_s: for a registry's first word. An image that is here for
    another platform does not count.
    Raises InputError when there is too little space, ActionError when it cannot be had.
    """
    engine = engines.find(parameters["engine"])
    image = str(parameters["image"])
    platform = wanted_platform(engine, parameters)
    former = before = image_look.find(engine, image)
    if before is not None and engines.differ(before.platform, platform):
        say(f"{image} is here for {before.platform}, {platform} is needed")
        before = None
    if before is not None and (parse(image).digest or parameters.get("if_missing")):
        return _result("unchanged", image, before, "this host")
    if before is None:
        image_look.check_images_space(engine, parameters["free_mib"], image)
    got = image_pull.fetch(engine, parameters, before, platform)
    found = image_look.find(engine, image)
    if found is None:
        raise ActionError(
            f"the engine said that it pulled {image}, but the image is not on this host.",
            todo=f"look: {engine.kind} image ls",
        )
    same = before is not None and before.id == found.id
    result = _result("unchanged" if same else "pulled", image, found, got.source, former)
    if got.digest and not result["digest"]:
        result["digest"] = got.digest
    if got.note:
        result["note"] = got.note
    return result


def wanted_platform(engine: Engine, parameters: dict[str, Any]) -> str:
    """OS/ARCH that images must be for: what the engine runs, unless the parameter platform says.

    elsewhere: the image is not to run here, so that any platform will do. Raises InputError.
    """
    given = engines.normal(parameters.get("platform") or "")
    if given and parameters.get("elsewhere"):
        return given
    own = engine.platform()
    if engines.differ(given, own):
        raise InputError(
            f"{engine.kind} on this host runs images for {own}, found {given} (image.platform).",
            todo="leave image.platform at null: each host then gets what is for it",
        )
    return own


def platform(parameters: dict[str, Any]) -> dict[str, Any]:
    """What images for this host must be for. parameters: engine."""
    try:
        found = engines.find(parameters["engine"]).platform()
    except InputError:  # no engine, or one that does not run: the kernel knows as well
        found = engines.own()
    return {"changed": False, "platform": found}


def load(parameters: dict[str, Any]) -> dict[str, Any]:
    """Have the image of an archive on this host; it is loaded only when it is not there.

    parameters: image, engine, ids (those that the archive's image may have), platforms (those that
    it is for), free_mib; platform and elsewhere, see wanted_platform; archive (a path), sha256,
    remove (take the archive away in the end). only_look: do nothing but say whether it is there
    ("missing" when not), and check the space in folder for size bytes.
    """
    engine = engines.find(parameters["engine"])
    image, ids = str(parameters["image"]), parameters["ids"]
    wanted = wanted_platform(engine, parameters)
    try:
        image_archive.check_platform(
            Path(parameters["archive"]), image, parameters["platforms"], wanted
        )
        before = image_look.find(engine, image)
        if before is not None and before.id in ids:
            return _result("unchanged", image, before, "this host")
        image_look.check_images_space(engine, parameters["free_mib"], image)
        if parameters.get("only_look"):
            _check_ship(parameters)
            return {"changed": False, "action": "missing", "image": image}
        archive = Path(parameters["archive"])
        image_archive.verify(archive, parameters["sha256"])
        _load(engine, image, archive)
    finally:
        if parameters.get("remove"):
            Path(parameters["archive"]).unlink(missing_ok=True)
    found = image_look.find(engine, image)
    if found is None or found.id not in ids:
        shown = found.id[:12] if found else "no such image"
        raise ActionError(
            f"the archive was loaded, but {image} is not what it holds: found {shown},"
            f" expected {' or '.join(i[:12] for i in ids)}.",
            todo="export the image again; look: docker image ls",
        )
    if engines.differ(found.platform, wanted):
        raise ActionError(
            f"the archive was loaded, but {image} is then for {found.platform}, {wanted} is needed:"
            f" {engine.kind} takes another of the images in it.",
            todo=f"export that one alone: scripts/pull_image.py {image} --export FILE --set"
            f" image.platform={wanted}",
        )
    return _result("loaded", image, found, str(archive), before)


def save(parameters: dict[str, Any]) -> dict[str, Any]:
    """Write the image of this host into an archive, and its check sum beside it.

    parameters: image, engine, archive (a path); platform and elsewhere, see wanted_platform. An
    archive that already holds it stays.
    """
    engine = engines.find(parameters["engine"])
    wanted = wanted_platform(engine, parameters)
    image, archive = str(parameters["image"]), Path(parameters["archive"])
    if parse(image).digest:
        raise InputError(
            f"{image}: an archive keeps no digest, the image would arrive without a name.",
            todo="export it by its tag; what arrives is checked by the archive's own SHA-256",
        )
    found = image_look.find(engine, image)
    if found is None:
        raise InputError(
            f"the image {image} is not on this host.",
            todo=f"scripts/pull_image.py {image}",
        )
    if engines.differ(found.platform, wanted):
        raise InputError(
            f"the image {image} of this host is for {found.platform}, {wanted} is needed.",
            todo=f"scripts/pull_image.py {image} --set image.platform={wanted}",
        )
    if _holds(archive, image, found):
        return {**_result("unchanged", image, found, "this host"), "archive": str(archive)}
    if not archive.parent.is_dir():
        raise InputError("there is no such folder.", where=str(archive.parent))
    image_look.check_space(archive.parent, found.size / MIB, f"the archive {archive}", "")
    part = archive.with_name(f".{archive.name}.part")
    sum_part = archive.with_name(f".{archive.name}.sha256.part")
    say(f"saving {image} to {archive}")
    try:
        code, progress = watch(save_argv(engine, image, part), f"saving {image}")
        if code != 0:
            said = "\n".join(progress.said)
            engine.raise_unreachable(said)
            raise ActionError(f"{image} could not be saved to {archive}; it was removed.\n{said}")
        sum_part.write_text(f"{image_archive.checksum(part)}  {archive.name}\n", "utf-8")
        part.replace(archive)
        sum_part.replace(image_archive.beside(archive))
    finally:
        part.unlink(missing_ok=True)
        sum_part.unlink(missing_ok=True)
    return {**_result("saved", image, found, "this host"), "archive": str(archive)}


def save_argv(engine: Engine, image: str, archive: Path) -> list[str]:
    """The command that writes an archive."""
    return engine.argv("save", "--output", str(archive), image)


def load_argv(engine: Engine, archive: Path) -> list[str]:
    """The command that loads an archive."""
    return engine.argv("load", "--input", str(archive))


def _load(engine: Engine, image: str, archive: Path) -> None:
    place = image_look.folder(engine)
    free = image_look.free_mib(place) if place else 0
    say(f"loading {image} from {archive}")
    code, progress = watch(load_argv(engine, archive), f"loading {image}")
    if code == 0:
        return
    said = "\n".join(progress.said)
    engine.raise_unreachable(said)
    fault = read(said, image, engine=engine.kind, registry="")
    if fault.kind == SPACE:
        raise image_pull.space_error(image, said, place, free)
    raise ActionError(f"{image} could not be loaded from {archive}.\n{said}")


def _check_ship(parameters: dict[str, Any]) -> None:
    """There is room for the archive in the work directory, which may not be there yet."""
    if "folder" not in parameters:
        return
    place = Path(parameters["folder"])
    while not place.is_dir():
        place = place.parent
    image_look.check_space(place, parameters["size"] / MIB, "the image's archive", "")


def _holds(archive: Path, image: str, found: Found) -> bool:
    """Whether an archive is whole and holds this image."""
    if not archive.is_file() or not image_archive.beside(archive).is_file():
        return False
    try:
        image_archive.verify(archive, image_archive.expected(archive))
        content = image_archive.content(archive)
    except InputError:
        return False
    return found.id in content.ids and is_called(content.tags, image)


def _result(
    action: str, image: str, found: Found, source: str, before: Optional[Found] = None
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "changed": action != "unchanged",
        "action": action,
        "image": image,
        "name": found.name,
        "id": found.id,
        "digest": found.digest(parse(image)),
        "from": source,
        "platform": found.platform,
    }
    if before is not None and before.id != found.id:
        result["former"] = before.id
        say(
            f"{image} was {before.id[:12]} before, which stays without a name;"
            f" remove it when no container needs it: docker image rm {before.id[:12]}"
        )
    return result
