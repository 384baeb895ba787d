"""Whether an image is older than a release: by what is in it, else by what it says of itself. Pure.

What says nothing leaves it unknown; nothing is guessed. An image's labels come from the image below
it too, so of the usual ones only a version that is written as omni-infer's releases are counts.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Any, Mapping, Optional

from hostkit.containers.image_look import split

FITS, OLDER, NEWER, UNKNOWN = "fits", "older", "newer", "unknown"
LABEL = "omnikit.omni_version"  # of the images that the toolkit builds: the release in them
_VERSION_LABEL = "org.opencontainers.image.version"
_VERSION = re.compile(r"v(\d+\.\d+\.\d+)")
_TAG_VERSION = re.compile(r"(?:^|[_-])(?:v|release[_-]v?)(\d+\.\d+\.\d+)(?![\d])")
# 20250627, with the time of day behind it or not; 2025-06-27, 2025.06.27, 2025_06_27.
_DATE = re.compile(r"(?<!\d)(20\d\d)([-._]?)(\d\d)\2(\d\d)(?:[0-2]\d[0-5]\d(?:[0-5]\d)?)?(?!\d)")
_NUMBERS = re.compile(r"v?(\d+(?:\.\d+)*)")
_FIRST = "2020"  # images that are made the same each time say they are from 1970 or so

# Of a release: name, date (2025-09 or 2025-09-12; None: unknown), packages (versions by name).
Release = Mapping[str, Any]
Verdict = tuple[str, str]  # one of the four words, and why


def by_name(release: Release, image: str) -> Verdict:
    """What an image's own name says."""
    version = _TAG_VERSION.search(split(image)[1])
    if version and _NUMBERS.match(release["name"]):
        return _compared(version[1], release["name"], f"its tag says {version[1]}")
    day = tag_date(image)
    if day is None or release["date"] is None:
        return UNKNOWN, "its name says no date"
    said = f"its tag says {day}"
    return (OLDER if is_before(day, release["date"]) else FITS), said


def by_itself(release: Release, labels: Mapping[str, str], created: Optional[str]) -> Verdict:
    """What an image says of itself where it is. created: as the container engine writes it."""
    own = labels.get(LABEL)
    if own == release["name"]:
        return FITS, f"its label {LABEL} says {own}"
    written = _VERSION.fullmatch(own or labels.get(_VERSION_LABEL, ""))
    if written and _NUMBERS.match(release["name"]):
        return _compared(written[1], release["name"], f"its label says {written[0]}")
    day = (created or "")[:10]
    if release["date"] is not None and day > _FIRST and is_before(day, release["date"]):
        return OLDER, f"it was made on {day}"
    return UNKNOWN, "its labels say no release"


def by_content(release: Release, packages: Mapping[str, str]) -> Verdict:
    """What is installed in it says. packages: versions by name, of those that are there."""
    wanted: Mapping[str, str] = release["packages"]
    found = {name: compared(packages[name], wanted[name]) for name in wanted if name in packages}
    for sign, word in ((-1, OLDER), (1, NEWER)):
        names = [name for name, order in found.items() if order == sign]
        if names:
            some = ", ".join(f"{n} {packages[n]} (the release has {wanted[n]})" for n in names)
            return word, f"it has {some}"
    lacking = [name for name in wanted if name not in found]
    if lacking or not wanted:
        return UNKNOWN, f"it has no {' and no '.join(lacking or ['expected package'])}"
    return FITS, "it has " + ", ".join(f"{name} {packages[name]}" for name in found)


def together(itself: Verdict, content: Verdict, name: Verdict) -> Verdict:
    """What an image's label, its packages and its name say together.

    A label is put there for this; packages come before a name, but where they seem old and the name
    does not: a source may have kept a version through releases, as omni_infer has its 0.1.0.
    """
    if itself[0] != UNKNOWN:
        return itself
    if (content[0], name[0]) in ((OLDER, FITS), (OLDER, NEWER)):
        return UNKNOWN, f"{name[1]}, but {content[1]}"
    known = [one for one in (content, name) if one[0] != UNKNOWN]
    said = dict.fromkeys(one[1] for one in (content, itself, name))
    return known[0] if known else (UNKNOWN, "; ".join(said))


def _compared(found: str, wanted: str, said: str) -> Verdict:
    return (OLDER, FITS, NEWER)[compared(found, wanted) + 1], said


def compared(found: str, wanted: str) -> int:
    """-1, 0 or 1: a version is older than, the same as or newer than another.

    >>> compared("0.9.0+empty", "0.9.0"), compared("0.4", "v0.4.1"), compared("0.10.1", "0.9.2")
    (0, -1, 1)
    """
    sides = []
    for text in (found, wanted):
        match = _NUMBERS.match(text)
        sides.append([int(part) for part in match[1].split(".")] if match else [])
    size = max(map(len, sides))
    one, other = ([*side, *[0] * (size - len(side))] for side in sides)
    return (one > other) - (one < other)


def tag_date(image: str) -> Optional[str]:
    """The date in an image's tag, the latest if there are several; None where there is none.

    >>> tag_date("r.io/omniinfer:202506272026"), tag_date("daily:20250722_26"), tag_date("a:1.2")
    ('2025-06-27', '2025-07-22', None)
    """
    days = []
    for year, _, month, day in _DATE.findall(split(image)[1]):
        try:
            days.append(date(int(year), int(month), int(day)).isoformat())
        except ValueError:
            continue
    return max(days, default=None)


def is_before(day: str, other: str) -> bool:
    """Whether a date is before another, where one of them may only name its month.

    >>> is_before("2025-06-27", "2025-09"), is_before("2025-09-02", "2025-09")
    (True, False)
    """
    size = min(len(day), len(other))
    return day[:size] < other[:size]
