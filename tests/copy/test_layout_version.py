"""What a layout's file ``oci-layout`` says."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from digestry.copy.file_tree import ArchiveTree, DirectoryTree
from digestry.copy.layout import LayoutSource, LayoutTarget
from digestry.errors import ContentError
from digestry.images.store import ImageStore
from tests.copy.test_odd_images import LayoutDirectory


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        (b'{"imageLayoutVersion":"2.0.0"}', "states version '2.0.0' of the image layout"),
        (b'{"imageLayoutVersion":1}', "states no imageLayoutVersion"),
        (b"{}", "states no imageLayoutVersion"),
        (b"no JSON", "is not the mark of an OCI image layout"),
    ],
)
def test_a_layout_of_another_version_is_neither_read_nor_written(
    tmp_path: Path, mark: bytes, said: str
) -> None:
    layout = LayoutDirectory(tmp_path / "layout")
    layout.name(layout.image(b"one"))
    (layout.path / "oci-layout").write_bytes(mark)
    before = sorted(str(path) for path in layout.path.rglob("*"))
    with pytest.raises(ContentError, match=said):
        LayoutSource(DirectoryTree(layout.path), "oci:layout")
    with pytest.raises(ContentError, match=said):
        LayoutTarget(layout.path, "oci:layout")
    store = ImageStore(layout.path)
    with pytest.raises(ContentError, match=said):
        store.entries()
    with pytest.raises(ContentError, match=said), store.adding():
        pass
    assert sorted(str(path) for path in layout.path.rglob("*")) == before
    archive = tmp_path / "layout.tar"
    with tarfile.open(archive, "w") as made:
        made.add(layout.path, ".")
    with pytest.raises(ContentError, match=said):
        LayoutSource(ArchiveTree(archive, scratch=tmp_path), "oci-archive:layout.tar")


@pytest.mark.parametrize(
    "mark", ['{"imageLayoutVersion": "1.0.0"}', '{"imageLayoutVersion":"1.1.0","more":[]}', ""]
)
def test_a_layout_of_version_1_is_read_however_it_says_so(tmp_path: Path, mark: str) -> None:
    """As it is without the file, which some programs leave out."""
    layout = LayoutDirectory(tmp_path / "layout")
    layout.name(layout.image(b"one"))
    if mark:
        (layout.path / "oci-layout").write_text(mark)
    else:
        (layout.path / "oci-layout").unlink()
    assert list(LayoutSource(DirectoryTree(layout.path), "oci:layout").names()) == ["1"]
    assert len(ImageStore(layout.path).entries()) == 1
