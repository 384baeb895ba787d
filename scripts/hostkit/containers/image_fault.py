"""What an engine's words mean when a pull or load failed, and what to do about it.

Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

from dataclasses import dataclass

from hostkit.base.errors import ActionError

NETWORK, SPACE, REFUSED = "network", "space", "refused"

# Looked for in this order; the signs are in lower case.
_SPACE = ("no space left on device", "disk quota exceeded")
_REFUSALS = (
    (
        ("gave http response to https client",),
        "the registry speaks plain HTTP, the engine wants HTTPS",
        "if that is meant: add the registry to insecure-registries in /etc/docker/daemon.json and"
        " restart Docker (Podman: insecure = true in /etc/containers/registries.conf)",
    ),
    (
        ("x509:", "certificate signed by unknown", "tls: failed to verify"),
        "the registry's certificate is not trusted here",
        "put its CA into /etc/docker/certs.d/HOST[:PORT]/ca.crt (Podman: /etc/containers/certs.d)",
    ),
    (
        ("no matching manifest for", "no image found in manifest list for"),
        "the registry has this image, but not for {platform}",
        "name an image that is built for it, in container.image",
    ),
    (
        ("manifest unknown", "name unknown", "manifest for", "repository name not known"),
        "the registry has no such image",
        "check name and tag in container.image, or push the image to the registry",
    ),
    (
        (
            "unauthorized",
            "denied",
            "no basic auth credentials",
            "authentication required",
            "401 un",
        ),
        "the registry does not let this host have it (wrong or missing log-in, or no such image)",
        "set image.credentials to a file with USER:PASSWORD, or log in by hand:"
        " {engine} login {registry}",
    ),
    (
        ("no such host",),
        "the registry's name is not known to this host's resolver",
        "check the name in container.image, and /etc/resolv.conf",
    ),
    (
        ("invalid reference format", "invalid repository name", "must be lowercase"),
        "this is not an image's name",
        "write REPOSITORY:TAG or REPOSITORY@sha256:DIGEST in lower case",
    ),
)
_FINAL = tuple(signs for signs, *_ in _REFUSALS[2:5])  # the registry itself said so
_NETWORK = (
    *("connection refused", "connection reset", "broken pipe", "connection timed out"),
    *("timeout", "timed out", "deadline exceeded", "eof", "no route to host"),
    *("network is unreachable", "host is down", "server misbehaving", "temporary failure"),
    *("unexpected http status: 5", "internal server error", "bad gateway", "toomanyrequests"),
    *("service unavailable", "error parsing http 5", "use of closed network connection"),
    *("received unexpected http status", "too many requests", "failed to verify checksum"),
    *("filesystem layer verification failed", "http2: ", "stream error", "status code 5"),
    # Go's net/http, when a kept connection dies under a request:
    *("server closed idle connection", "client connection lost", "request canceled"),
)


@dataclass(frozen=True)
class Fault:
    """kind: network (worth another attempt), space, refused. source: the image as it was asked.

    final: the registry itself has answered, and will not answer otherwise.
    """

    kind: str
    source: str
    why: str
    todo: str
    said: str
    final: bool = False

    def error(self, image: str) -> ActionError:
        """The error for a person."""
        at = "" if self.source == image else f" (asked for as {self.source})"
        return ActionError(f"{image}{at}: {self.why}.\n{self.said}", todo=self.todo)


def read(said: str, source: str, *, engine: str, registry: str, platform: str = "") -> Fault:
    """What went wrong, by what the engine said last. platform: what the image was to be for."""
    text = said.lower()
    if any(sign in text for sign in _SPACE):
        return Fault(SPACE, source, "no space is left on the disk", "", said)
    for signs, why, todo in _REFUSALS:
        if any(sign in text for sign in signs):
            known = {"engine": engine, "registry": registry, "platform": platform}
            final = signs in _FINAL
            return Fault(REFUSED, source, why.format(**known), todo.format(**known), said, final)
    if any(sign in text for sign in _NETWORK):
        return Fault(
            NETWORK,
            source,
            "the registry cannot be reached, or the connection was cut",
            f"look whether it answers from this host: curl -i https://{registry}/v2/",
            said,
        )
    todo = f"try it by hand: {engine} pull {source}"
    return Fault(REFUSED, source, "the engine could not pull it", todo, said)
