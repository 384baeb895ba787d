"""What an engine says of a pull or load: layers counted while it runs, a plain line of progress now
and then, what its words mean when it failed, and what to do about it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Callable, Mapping, Optional

from hostkit.base import command, faults, run
from hostkit.base.command import SAY_S
from hostkit.base.faults import NETWORK, REFUSED, SPACE, Fault, Meaning
from hostkit.base.log import say

_LAYER = re.compile(r"([0-9a-f]{12}): (.*)")
_BLOB = re.compile(r"Copying blob (?:sha256:)?([0-9a-f]{12})")
_DIGEST = re.compile(r"Digest: (sha256:[0-9a-f]{64})")
_COPYING, _ASKING = "Copying", "Trying to pull "


@dataclass
class Progress:
    """What an engine has said so far. layers: id to its last state."""

    layers: dict[str, str] = field(default_factory=dict)
    resumed: set[str] = field(default_factory=set)
    digest: str = ""
    said: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Layers that are on this host."""
        return sum(state in ("Pull complete", "Already exists") for state in self.layers.values())

    @property
    def already(self) -> int:
        """Layers that were on this host before."""
        return sum(state == "Already exists" for state in self.layers.values())

    @property
    def begun(self) -> bool:
        """Whether a layer is about to come. Podman does not say: it names those here as well."""
        return any(state not in ("Already exists", _COPYING) for state in self.layers.values())

    def line(self, text: str) -> None:
        """Take in a line of the engine's output."""
        layer, blob = _LAYER.fullmatch(text.strip()), _BLOB.match(text)
        if layer and layer[2].startswith("Retrying in") and layer[1] not in self.resumed:
            self.resumed.add(layer[1])
            say(f"layer {layer[1]}: the connection was cut; the engine goes on where it was")
        if layer:
            self.layers[layer[1]] = layer[2]
        elif blob:
            self.layers.setdefault(blob[1], _COPYING)
        elif text.strip():
            digest = _DIGEST.match(text)
            self.digest = digest[1] if digest else self.digest
            self.said = [*self.said, text.strip()][-8:]

    @property
    def answered(self) -> bool:
        """Whether a registry has said anything. Podman names it before it asks."""
        said = [line for line in self.said if not line.startswith(_ASKING)]
        return bool(self.layers or said)

    def show(self) -> str:
        """How far it is."""
        if not self.layers:
            return "no layer yet"
        if _COPYING in self.layers.values():  # Podman does not say when one is done
            return f"{len(self.layers)} layers"
        return f"{self.done} of {len(self.layers)} layers done"


def watch(
    argv: run.Words,
    what: str,
    *,
    env: Optional[Mapping[str, str]] = None,
    on_begin: Optional[Callable[[], None]] = None,
    say_s: float = SAY_S,
    answer_s: float = math.inf,
) -> tuple[int, Progress]:
    """Run a command to its end with lines of progress; its exit status and what it said. answer_s:
    after which it is ended when nobody has answered it by then.

    on_begin is called when the first layer is about to come; what it raises ends the command, and
    so does an interrupt.
    """
    progress = Progress()
    asked = on_begin is None

    def heard(line: str) -> None:
        nonlocal asked
        progress.line(line)
        if progress.begun and not asked:
            asked = True
            assert on_begin is not None
            on_begin()

    def show(seconds: float) -> str:
        return f"{progress.show()}, {seconds:.0f} s"

    def over(seconds: float) -> bool:
        return seconds > answer_s and not progress.answered

    ended = command.watch(argv, what, env=env, over=over, on_line=heard, show=show, say_s=say_s)
    if ended.stalled:
        progress.said = [f"timed out: no answer within {answer_s:g} s"]
    return ended.code, progress


# Looked for in this order.
_MEANINGS = (
    Meaning(
        SPACE,
        "no space left on device|disk quota exceeded",
        "no space is left on the disk",
        "",
    ),
    Meaning(
        REFUSED,
        "gave http response to https client",
        "the registry speaks plain HTTP, the engine wants HTTPS",
        "if that is meant: add the registry to insecure-registries in /etc/docker/daemon.json and"
        " restart Docker (Podman: insecure = true in /etc/containers/registries.conf)",
    ),
    Meaning(
        REFUSED,
        "x509:|certificate signed by unknown|tls: failed to verify",
        "the registry's certificate is not trusted here",
        "put its CA into /etc/docker/certs.d/HOST[:PORT]/ca.crt (Podman: /etc/containers/certs.d)",
    ),
    Meaning(
        REFUSED,
        "no matching manifest for|no image found in manifest list for",
        "the registry has this image, but not for {platform}",
        "name an image that is built for it, in container.image",
        final=True,
    ),
    Meaning(
        REFUSED,
        "manifest unknown|name unknown|manifest for|repository name not known",
        "the registry has no such image",
        "check name and tag in container.image, or push the image to the registry",
        final=True,
    ),
    Meaning(
        REFUSED,
        "unauthorized|denied|no basic auth credentials|authentication required|401 un",
        "the registry does not let this host have it (wrong or missing log-in, or no such image)",
        "set image.credentials to a file with USER:PASSWORD, or log in by hand:"
        " {engine} login {registry}",
        final=True,
    ),
    Meaning(
        REFUSED,
        "no such host",
        "the registry's name is not known to this host's resolver",
        "check the name in container.image, and /etc/resolv.conf",
    ),
    Meaning(
        REFUSED,
        "invalid reference format|invalid repository name|must be lowercase",
        "this is not an image's name",
        "write REPOSITORY:TAG or REPOSITORY@sha256:DIGEST in lower case",
    ),
    Meaning(
        NETWORK,
        "connection refused|connection reset|broken pipe|connection timed out|timeout|timed out"
        "|deadline exceeded|eof|no route to host|network is unreachable|host is down"
        "|server misbehaving|temporary failure|unexpected http status: 5|internal server error"
        "|bad gateway|toomanyrequests|service unavailable|error parsing http 5"
        "|use of closed network connection|received unexpected http status|too many requests"
        "|failed to verify checksum|filesystem layer verification failed|http2: |stream error"
        "|status code 5|server closed idle connection|client connection lost|request canceled",
        "the registry cannot be reached, or the connection was cut",
        "look whether it answers from this host: curl -i https://{registry}/v2/",
    ),
    Meaning(REFUSED, "", "the engine could not pull it", "try it by hand: {engine} pull {source}"),
)


def read(said: str, source: str, *, engine: str, registry: str, platform: str = "") -> Fault:
    """What went wrong, by what the engine said last. platform: what the image was to be for."""
    known = {"engine": engine, "registry": registry, "platform": platform, "source": source}
    return faults.read(said, source, _MEANINGS, known, said)
