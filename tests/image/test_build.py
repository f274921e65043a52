"""A whole build, of the smallest system there is: a minute on two cores, and the network."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from pxeboot.errors import PxebootError
from pxeboot.image import build as building
from pxeboot.image import recipes
from pxeboot.image.library import Library

pytestmark = [pytest.mark.boot, pytest.mark.timeout(600)]

RECIPE = """
name = "tiny"
modules = ["dummy"]
commands = ["grep -qx hello /etc/greeting", "touch /made"]
strip = ["package-manager"]
drop = ["/usr/share/*"]
files = { "/etc/greeting" = "greeting" }
squashfs = { level = 3 }
"""


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: what is cached by one build serves the next."""
    return tmp_path_factory.mktemp("state")


def load(folder: Path, text: str) -> recipes.LoadedRecipe:
    (folder / "recipe.toml").write_text(text)
    (folder / "greeting").write_text("hello\n")
    return recipes.load(str(folder))


def left_behind(state_dir: Path) -> list[str]:
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if str(state_dir) in line]
    return mounts + [str(path) for path in (state_dir / "images").glob(".draft-*")]


async def test_a_recipe_becomes_an_image_and_again_the_same(state_dir: Path, tmp_path: Path) -> None:
    loaded = load(tmp_path, RECIPE)
    steps: dict[str, float | None] = {}
    image = await building.build(loaded, state_dir, "small", steps.__setitem__)
    assert steps == dict.fromkeys(("root file system", "kernel", "curl", "initrd", "squashfs"), 1.0)
    assert Library(state_dir / "images").resolve("small") == image
    assert image.initrd.stat().st_size < 12_000_000
    sizes = {package.name: package.size for package in image.manifest.packages}
    assert (sizes["dash"] > 100_000, sizes["apt"], "perl" in sizes) == (True, 0, False)
    assert {rule.rule: rule.size > 0 for rule in image.manifest.stripped} == {"package-manager": True}

    listed = subprocess.run(
        ["unsquashfs", "-l", image.root], check=True, capture_output=True, text=True
    ).stdout
    files = {line.removeprefix("squashfs-root") for line in listed.splitlines()}
    assert {"/etc/greeting", "/made", "/etc/machine-id", "/usr/share"} <= files
    assert {f"/usr/lib/modules/{image.manifest.kernel_version}/modules.dep.bin"} <= files
    assert any(path.endswith("/dummy.ko") for path in files)
    assert not {"/etc/hostname", "/usr/share/doc"} & files

    again = await building.build(loaded, state_dir, "small", lambda step, share: None)
    assert again.digest == image.digest
    assert left_behind(state_dir) == []


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ('packages = ["no-such-thing"]', "has no package 'no-such-thing'"),
        ('modules = ["no_such_module"]', "no module 'no_such_module'"),
        ('kernel = "linux-image-none"', "'linux-image-none'"),
        ('suite = "buzz"', "no source for 'buzz'"),
    ],
)
async def test_a_wrong_recipe_is_told_by_name_and_leaves_nothing(
    state_dir: Path, tmp_path: Path, wrong: str, told: str
) -> None:
    with pytest.raises(PxebootError, match=told):
        loaded = load(tmp_path, f'name = "bad"\n{wrong}\n')
        await building.build(loaded, state_dir, "bad", lambda step, share: None)
    assert left_behind(state_dir) == []
    assert Library(state_dir / "images").tag("bad") is None


async def test_an_interrupted_build_leaves_nothing(state_dir: Path, tmp_path: Path) -> None:
    reached = asyncio.Event()

    def progress(name: str, done: float | None) -> None:
        if name == "root file system" and done is not None and done > 0.3:
            reached.set()

    task = asyncio.ensure_future(building.build(load(tmp_path, RECIPE), state_dir, "cut", progress))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left_behind(state_dir) == []
    assert Library(state_dir / "images").tag("cut") is None
