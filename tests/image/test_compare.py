from pathlib import Path

import pytest

from pxeboot.image import compare, squashfs
from pxeboot.image.compare import Change
from pxeboot.image.library import Library
from pxeboot.image.manifest import Package, Stripped
from pxeboot.image.recipe import SquashFs
from tests.parts import put_image

from .test_library import manifest
from .trees import write


def packages(**versions: tuple[str, int]) -> tuple[Package, ...]:
    return tuple(Package(name=name, version=version, size=size) for name, (version, size) in versions.items())


def test_packages_come_go_and_change_in_version_and_size() -> None:
    old = manifest().model_copy(update={"packages": packages(a=("1", 5), b=("1", 7), c=("2", 1), d=("1", 1))})
    new = manifest().model_copy(update={"packages": packages(b=("2", 9), c=("2", 3), d=("1", 1), e=("1", 4))})
    assert compare.packages(old, new) == [
        Change("removed", "a", "1", "", -5),
        Change("changed", "b", "1", "2", 2),
        Change("changed", "c", "2", "2", 2),
        Change("added", "e", "", "1", 4),
    ]


def test_other_facts_are_told_when_they_changed() -> None:
    stripped = (Stripped(rule="perl", size=5),)
    new = manifest().model_copy(update={"kernel_version": "6.2", "stripped": stripped})
    assert compare.facts(manifest(), manifest()) == []
    assert compare.facts(manifest(), new) == [
        Change("changed", "kernel_version", "6.1", "6.2"),
        Change("changed", "strip", "", "perl"),
    ]


@pytest.mark.net
async def test_files_are_compared_by_what_is_in_them(tmp_path: Path) -> None:
    library = Library(tmp_path / "images")
    images = []
    for name in ("old", "new"):
        tree = tmp_path / name
        write(tree, "etc/same", "etc/mode", f"etc/{name}", text="12345")
        write(tree, "etc/text", text=name)
        (tree / "etc/link").symlink_to(name)
        if name == "new":
            (tree / "etc/mode").chmod(0o755)
        await squashfs.make(tree, tmp_path / f"{name}.squashfs", SquashFs(level=1), 0, lambda share: None)
        images.append(put_image(library, name, (tmp_path / f"{name}.squashfs").read_bytes()))
    (tmp_path / "scratch").mkdir()
    found = await compare.files(images[0], images[1], tmp_path / "scratch")
    assert [(change.kind, change.name, change.after, change.growth) for change in found] == [
        ("changed", "/etc/link", "link to new", 0),
        ("changed", "/etc/mode", "mode 755", 0),
        ("added", "/etc/new", "", 5),
        ("removed", "/etc/old", "", -5),
        ("changed", "/etc/text", "contents", 0),
    ]
