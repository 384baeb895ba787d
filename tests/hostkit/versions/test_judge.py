"""What tells that an image is older than a release, and what tells nothing."""

from __future__ import annotations

from typing import Optional

import pytest

from hostkit.versions import judge
from hostkit.versions.judge import FITS, NEWER, OLDER, UNKNOWN

WANTED = {
    "name": "v0.4.1",
    "date": "2025-09",
    "packages": {"vllm": "0.9.0", "omni_infer": "0.4.1"},
}


@pytest.mark.parametrize(
    ("image", "word"),
    [
        ("swr.cn-southwest-2.myhuaweicloud.com/omni-ai/omniinfer:202506272026", OLDER),
        ("r.io/daily_omniinfer:20250722_26", OLDER),
        ("r.io/omni_infer-a2-arm:test_0.5.0_20250920_v5", FITS),
        ("r.io/omniinfer:2025-08-31", OLDER),
        ("r.io/omniinfer:20250901", FITS),  # of the month of the release: not older
        ("r.io/omniinfer-a3-arm:release_1.2.1.post1-202606292354-vllm", NEWER),
        ("r.io/omniinfer:v0.4.0", OLDER),
        ("r.io/omniinfer:v0.4.1-202506272026", FITS),  # a version says more than a date
        ("r.io:5000/20250627/omniinfer:latest", UNKNOWN),
        ("r.io/omniinfer:20251399", UNKNOWN),  # no date
        ("r.io/omniinfer:1202506272", UNKNOWN),
        ("r.io/omniinfer", UNKNOWN),
        ("omnikit/omni-infer:0.1.0", UNKNOWN),
        ("r.io/omniinfer@sha256:" + "20250627" * 8, UNKNOWN),
    ],
)
def test_the_name_of_an_image(image: str, word: str) -> None:
    assert judge.by_name(WANTED, image)[0] == word


def test_a_release_without_a_date_or_a_number() -> None:
    image = "r.io/omniinfer:202506272026"
    assert judge.by_name({**WANTED, "date": None}, image)[0] == UNKNOWN
    tools = {**WANTED, "name": "2025-08", "date": "2025-08"}
    assert judge.by_name(tools, image) == (OLDER, "its tag says 2025-06-27")


@pytest.mark.parametrize(
    ("labels", "created", "word"),
    [
        ({judge.LABEL: "v0.4.1"}, "2025-01-01T00:00:00Z", FITS),
        ({judge.LABEL: "v0.4.0"}, None, OLDER),
        ({"org.opencontainers.image.version": "v0.5.0"}, None, NEWER),
        # An image has the labels of the one below it: these are of the operating system.
        ({"org.opencontainers.image.version": "22.04"}, None, UNKNOWN),
        ({"org.opencontainers.image.created": "2025-01-01"}, None, UNKNOWN),
        ({}, "2025-06-27T20:26:11.123456789+08:00", OLDER),
        ({}, "2025-09-03T00:00:00Z", UNKNOWN),  # made later, of whatever
        ({}, "1970-01-01T00:00:00Z", UNKNOWN),
        ({}, "", UNKNOWN),
    ],
)
def test_what_an_image_says_of_itself(
    labels: dict[str, str], created: Optional[str], word: str
) -> None:
    assert judge.by_itself(WANTED, labels, created)[0] == word


@pytest.mark.parametrize(
    ("packages", "word", "said"),
    [
        ({"vllm": "0.9.0+empty", "omni_infer": "0.4.1"}, FITS, "it has vllm 0.9.0+empty"),
        (
            {"vllm": "0.9.0", "omni_infer": "0.1.0"},
            OLDER,
            "omni_infer 0.1.0 (the release has 0.4.1",
        ),
        ({"vllm": "0.8.5"}, OLDER, "vllm 0.8.5"),
        ({"vllm": "0.14.0", "omni_infer": "0.4.1"}, NEWER, "vllm 0.14.0"),
        ({"vllm": "0.9.0"}, UNKNOWN, "it has no omni_infer"),
        ({}, UNKNOWN, "it has no vllm and no omni_infer"),
    ],
)
def test_what_is_in_an_image(packages: dict[str, str], word: str, said: str) -> None:
    found = judge.by_content(WANTED, packages)
    assert found[0] == word and said in found[1]


@pytest.mark.parametrize(
    ("labels", "packages", "image", "word"),
    [
        ({}, {"vllm": "0.9.0", "omni_infer": "0.4.1"}, "a:20250627", FITS),
        ({}, {}, "a:20250627", OLDER),
        ({}, {"vllm": "0.9.0", "omni_infer": "0.1.0"}, "a:latest", OLDER),
        # Its source kept 0.1.0 through releases: the two contradict each other.
        ({}, {"vllm": "0.9.0", "omni_infer": "0.1.0"}, "a:20250930", UNKNOWN),
        ({judge.LABEL: "v0.4.1"}, {"vllm": "0.9.0", "omni_infer": "0.1.0"}, "a:latest", FITS),
        ({}, {"vllm": "0.14.0", "omni_infer": "1.2.1"}, "a:202606292354", NEWER),
        ({}, {}, "a:latest", UNKNOWN),
    ],
)
def test_all_that_is_known_of_an_image(
    labels: dict[str, str], packages: dict[str, str], image: str, word: str
) -> None:
    itself = judge.by_itself(WANTED, labels, None)
    content = judge.by_content(WANTED, packages)
    assert judge.together(itself, content, judge.by_name(WANTED, image))[0] == word
