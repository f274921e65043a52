"""Our own kernel, up to its configuration; `tests/test_release.py` builds and boots it."""

from itertools import combinations
from pathlib import Path

import pytest

from pxeboot.errors import PxebootError
from pxeboot.image import custom_kernel
from pxeboot.image.custom_kernel import configure, load_fragments
from pxeboot.image.packages import open_apt
from pxeboot.image.recipe import Recipe
from pxeboot.resources import kernel_fragments

NAMES = ("director", "nfs", "nic", "virt")


def test_the_shipped_fragments_are_these() -> None:
    assert sorted(path.stem for path in kernel_fragments().glob("*.config")) == ["base", *NAMES]


def test_shipped_fragments_fit_together_in_every_choice() -> None:
    for count in range(len(NAMES) + 1):
        for names in combinations(NAMES, count):
            assert load_fragments(names).settings["SQUASHFS_ZSTD"] == "y"


def test_the_order_in_which_fragments_are_given_does_not_matter() -> None:
    assert load_fragments(["virt", "nic"]) == load_fragments(["nic", "base", "virt", "nic"])


def test_a_fragment_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(PxebootError, match="no kernel fragment 'wifi'") as caught:
        load_fragments(["virt", "wifi"])
    assert caught.value.hint == "choose among: director, nfs, nic, virt"


def test_another_setting_is_another_configuration(tmp_path: Path) -> None:
    for path in kernel_fragments().glob("*.config"):
        (tmp_path / path.name).write_text(path.read_text())
    same = load_fragments(["virt"], tmp_path)
    with (tmp_path / "virt.config").open("a") as file:
        file.write("CONFIG_FUSE_FS=y\n")
    assert load_fragments(["virt"]).sha256 == same.sha256 != load_fragments(["virt"], tmp_path).sha256


def test_missing_headers_are_told_by_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custom_kernel, "_HEADERS", {Path("/nowhere/libelf.h"): "libelf-dev"})
    with pytest.raises(PxebootError, match="missing: libelf-dev"):
        custom_kernel._check_headers()


@pytest.mark.boot
@pytest.mark.timeout(300)
async def test_debians_source_takes_every_setting_and_names_the_one_it_does_not(
    tmp_path: Path,
) -> None:
    apt, _ = await open_apt(Recipe(name="kernel"), tmp_path)
    package, version = await custom_kernel._versioned(apt, "linux-source")
    source = await custom_kernel._unpack(apt, package, version, tmp_path)  # 140 MB to fetch, 1.3 GB on disk
    for names in (NAMES, ("virt",), ("nic",), ("nfs",), ("director",), ()):
        await configure(source, load_fragments(names))
    fragments = load_fragments(["virt"])
    settings = {**fragments.settings, "BPF_JIT": "y", "NO_SUCH_OPTION": "y"}
    with pytest.raises(PxebootError) as caught:
        await configure(source, custom_kernel.Fragments(("virt",), settings))
    told = str(caught.value).splitlines()
    assert told[0] == "2 kernel settings did not survive the merge:"
    assert told[1].startswith("  CONFIG_BPF_JIT=y became n: it depends on ")
    assert "MODULES" in told[1]
    assert told[2] == "  CONFIG_NO_SUCH_OPTION=y became n: this kernel has no such option"
