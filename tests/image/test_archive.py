import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pxeboot.errors import PxebootError
from pxeboot.image import archive, signature
from pxeboot.image.library import Image, Library
from tests.image.disk import contents, fill, small_disk
from tests.parts import put_image

KEY = Ed25519PrivateKey.generate()


def quiet(share: float | None) -> None:
    pass


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "images")


@pytest.fixture
def other(tmp_path: Path) -> Library:
    return Library(tmp_path / "elsewhere")


@pytest.fixture
def image(library: Library) -> Image:
    return put_image(library)


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != ".lock"} if folder.is_dir() else set()


def test_an_exported_image_is_imported_as_it_was(image: Image, other: Library, tmp_path: Path) -> None:
    shares: list[float | None] = []
    archive.export(image, tmp_path / "web.image", shares.append)
    taken = archive.take(tmp_path / "web.image", other, quiet)
    assert (taken.digest, taken.manifest) == (image.digest, image.manifest)
    for name in ("root.squashfs", "kernel", "initrd", "manifest.json"):
        assert (taken.path / name).read_bytes() == (image.path / name).read_bytes()
    assert shares[-1] == 1.0


def test_the_signature_goes_along(image: Image, library: Library, other: Library, tmp_path: Path) -> None:
    library.sign(image, KEY)
    archive.export(image, tmp_path / "web.image", quiet)
    other.trust([signature.public_key(KEY)])
    assert (
        other.bootable(archive.take(tmp_path / "web.image", other, quiet).digest).signature == image.signature
    )


def test_the_same_image_gives_the_same_file(image: Image, tmp_path: Path) -> None:
    for name in ("one", "two"):
        archive.export(image, tmp_path / name, quiet)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_an_export_that_cannot_be_written_leaves_nothing(image: Image, tmp_path: Path) -> None:
    with pytest.raises(PxebootError, match="cannot be written"):
        archive.export(image, tmp_path / "nowhere/web.image", quiet)
    assert not (tmp_path / "nowhere").exists()


def rewrite(source: Path, change: dict[str, bytes | None], extra: tuple[tarfile.TarInfo, ...] = ()) -> None:
    """Replace the contents of members; None leaves one out; `extra` comes last."""
    with tarfile.open(source) as old:
        parts = [(member, old.extractfile(member)) for member in old.getmembers()]
        kept = [(member, file.read()) for member, file in parts if file is not None]
    with tarfile.open(source, "w") as new:
        for member, old_data in kept:
            data = change.get(member.name, old_data)
            if data is not None:
                member.size = len(data)
                new.addfile(member, BytesIO(data))
        for member in extra:
            new.addfile(member)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kernel": b"other"}, "kernel does not have the digest"),
        ({"root.squashfs": None}, r"root.squashfs is missing"),
        ({"manifest.json": None}, r"does not begin with manifest.json"),
        ({"manifest.json": b"{}"}, r"manifest.json: recipe: Field required"),
    ],
)
def test_a_damaged_file_is_refused_and_leaves_nothing(
    change: dict[str, bytes | None], told: str, image: Image, other: Library, tmp_path: Path
) -> None:
    archive.export(image, tmp_path / "web.image", quiet)
    rewrite(tmp_path / "web.image", change)
    with pytest.raises(PxebootError, match=told):
        archive.take(tmp_path / "web.image", other, quiet)
    assert entries(tmp_path / "elsewhere") == set()


def test_a_cut_file_and_any_other_file_are_refused(image: Image, other: Library, tmp_path: Path) -> None:
    archive.export(image, tmp_path / "web.image", quiet)
    data = (tmp_path / "web.image").read_bytes()
    for cut in (0, 100, 600, 3000, len(data) // 2):
        (tmp_path / "cut").write_bytes(data[:cut])
        with pytest.raises(PxebootError):
            archive.take(tmp_path / "cut", other, quiet)
    assert entries(tmp_path / "elsewhere") == set()


def test_no_name_in_a_file_chooses_where_something_is_written(
    image: Image, other: Library, tmp_path: Path
) -> None:
    archive.export(image, tmp_path / "web.image", quiet)
    outside = tarfile.TarInfo("../../outside")
    rewrite(tmp_path / "web.image", {"kernel": None}, (outside,))
    with pytest.raises(PxebootError, match="kernel is missing"):
        archive.take(tmp_path / "web.image", other, quiet)
    assert not any(path.name == "outside" for path in tmp_path.rglob("*"))


def test_verifying_finds_a_flipped_byte_and_a_missing_file(image: Image) -> None:
    assert archive.verify(image, quiet) == []
    data = bytearray(image.root.read_bytes())
    data[1000] ^= 1
    image.root.write_bytes(data)
    image.kernel.unlink()
    faults = archive.verify(image, quiet)
    assert len(faults) == 2
    assert faults[0] == "kernel is missing"
    assert faults[1].startswith("root.squashfs has the digest")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 kB."""
    with small_disk(tmp_path / "small", "600k") as folder:
        yield folder


@pytest.mark.net
def test_a_full_disk_while_importing_leaves_the_library_as_it_was(
    image: Image, small: Path, tmp_path: Path
) -> None:
    library = Library(small / "images")
    first = put_image(library, "web", root=b"small")
    archive.export(image, tmp_path / "web.image", quiet)
    before = contents(small)
    with pytest.raises(PxebootError, match=r"no space is left in .*/images: ") as caught:
        archive.take(tmp_path / "web.image", library, quiet)
    assert "image gc" in caught.value.hint
    assert contents(small) == before
    assert library.resolve("web") == first


@pytest.mark.net
def test_a_full_disk_while_moving_a_tag_leaves_the_tag_and_can_be_emptied(small: Path) -> None:
    library = Library(small / "images")
    one, two = (put_image(library, "web", root=data) for data in (b"one", b"two"))
    library.set_tag("web", one.digest)
    fill(small)
    with pytest.raises(PxebootError, match="no space is left"):
        library.set_tag("web", two.digest)
    with pytest.raises(PxebootError, match="no space is left"):
        library.sign(one, KEY)
    assert Library(small / "images").tag("web") == one.digest
    with library.alone():
        library.remove(two.digest)
    library.set_tag("other", one.digest)
    assert library.tags() == {"other": one.digest, "web": one.digest}
