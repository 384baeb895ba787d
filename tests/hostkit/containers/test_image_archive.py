"""Archives of images: check sums beside them, ids and tags in them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from platform_cases import archive_for, oci_archive

from hostkit.base.errors import InputError
from hostkit.containers import image_archive

ID, OTHER = "1" * 64, "2" * 64


def an_archive(path: Path, **files: Any) -> Path:
    """A tar file with JSON files, named with _ for . in their names."""
    with tarfile.open(path, "w") as made:
        for name, data in files.items():
            text = json.dumps(data).encode()
            entry = tarfile.TarInfo(name.replace("_", "."))
            entry.size = len(text)
            made.addfile(entry, io.BytesIO(text))
    return path


def test_older_engines_name_the_image_by_its_configuration(tmp_path) -> None:
    path = an_archive(
        tmp_path / "a.tar", manifest_json=[{"Config": f"{ID}.json", "RepoTags": ["a/b:1"]}]
    )
    found = image_archive.content(path)
    assert (found.ids, found.tags) == ((ID,), ("a/b:1",))


def test_newer_engines_name_it_by_its_manifest_as_well(tmp_path) -> None:
    path = an_archive(
        tmp_path / "a.tar",
        manifest_json=[{"Config": f"blobs/sha256/{ID}", "RepoTags": ["a/b:1"]}],
        index_json={"manifests": [{"digest": f"sha256:{OTHER}"}]},
    )
    assert image_archive.content(path).ids == (ID, OTHER)


@pytest.mark.parametrize("text", [b"", b"no archive" * 200])
def test_something_else_is_no_archive(tmp_path, text) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(text)
    with pytest.raises(InputError, match="not an archive of an image"):
        image_archive.content(path)
    with pytest.raises(InputError, match="not an archive of an image"):
        image_archive.content(an_archive(tmp_path / "b.tar", other_json={}))


def test_the_check_sum_stands_beside_it(tmp_path) -> None:
    path = an_archive(tmp_path / "a.tar", x_json={})
    with pytest.raises(InputError, match="check sum is not there") as caught:
        image_archive.expected(path)
    assert f"sha256sum {path} > {path}.sha256" in str(caught.value)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    Path(f"{path}.sha256").write_text(f"{sha256}  a.tar\n")
    assert image_archive.expected(path) == sha256
    image_archive.verify(path, sha256)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="damaged or cut short"):
        image_archive.verify(path, sha256)
    with pytest.raises(InputError, match="no such archive"):
        image_archive.verify(tmp_path / "none.tar", sha256)


def test_an_archive_says_what_its_image_is_for(tmp_path) -> None:
    path = archive_for(tmp_path / "a.tar", "a/b:1", "linux/arm64")
    (image,) = image_archive.content(path).images
    assert (image.tags, image.platform) == (("a/b:1",), "linux/arm64")


@pytest.mark.parametrize("nested", [True, False])
def test_an_index_says_it_of_each_that_the_archive_has(tmp_path, nested) -> None:
    both = ("linux/amd64", "linux/arm64")
    found = image_archive.content(oci_archive(tmp_path / "a.tar", both, "a/b:1", nested))
    assert [image.platform for image in found.images] == list(both)
    assert found.tags == ("a/b:1",) and {len(image.ids) for image in found.images} == {2 + nested}


def test_another_platform_is_refused_by_name(tmp_path) -> None:
    check, path = image_archive.check_platform, tmp_path / "a.tar"
    with pytest.raises(InputError, match="holds a/b:1 for linux/amd64, linux/arm64 is needed") as e:
        check(path, "a/b:1", ["linux/amd64"], "linux/arm64")
    assert "--set image.platform=linux/arm64" in str(e.value) and str(path) in str(e.value)
    for found in (["linux/amd64", "linux/arm64"], ["linux/aarch64"], []):
        check(path, "a/b:1", found, "linux/arm64")
