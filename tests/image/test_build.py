"""A whole build, of the smallest system there is: a minute on two cores, and the network."""

import asyncio
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

from pxeboot.errors import PxebootError
from pxeboot.image import build as building
from pxeboot.image import packages, recipes
from pxeboot.image.library import Library
from tests.conftest import BUILDING
from tests.image.disk import contents, fill, small_disk
from tests.parts import put_image

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


EXTRAS = """
users = { eve = { keys = ["ssh-ed25519 AAAA eve"], groups = ["adm"], shell = "/bin/sh" } }
variables = { site = "a.example" }
"""


FOREIGN = 'name = "foreign"\nbase = "root.tar"\nmodules = ["dummy"]\nsquashfs = { level = 1 }'


def quiet(step: str, share: float | None) -> None:
    """No progress is shown."""


@pytest.fixture(scope="module")
def state_dir() -> Iterator[Path]:
    """One for all: what is cached by one build serves the next. But for packages, the cache is the demo's."""
    BUILDING.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="test-", dir=BUILDING) as name:
        cache = Path(name) / "cache"
        cache.mkdir()
        for part in ("apt", "curl", "kernels"):
            (BUILDING / "cache" / part).mkdir(parents=True, exist_ok=True)
            (cache / part).symlink_to(BUILDING / "cache" / part)
        yield Path(name)


def load(folder: Path, text: str) -> recipes.LoadedRecipe:
    (folder / "recipe.toml").write_text(text)
    (folder / "greeting").write_text("hello\n")
    if text == FOREIGN:
        with tarfile.open(folder / "root.tar", "w") as tar:
            tar.add("/bin/busybox", "sbin/init")
            random = tarfile.TarInfo("random")
            random.size = 16_000_000
            tar.addfile(random, BytesIO(Random(1).randbytes(random.size)))
    return recipes.load(str(folder))


def left_behind(state_dir: Path) -> list[str]:
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if str(state_dir) in line]
    return mounts + [str(path) for path in (state_dir / "images").glob(".draft-*")]


async def test_a_recipe_becomes_an_image_and_again_the_same(state_dir: Path, tmp_path: Path) -> None:
    loaded = load(tmp_path, RECIPE)
    steps: dict[str, float | None] = {}
    image = await building.build(loaded, state_dir, "small", steps.__setitem__)
    assert steps == dict.fromkeys(
        ("packages", "root file system", "kernel", "curl", "initrd", "squashfs"), 1.0
    )
    assert Library(state_dir / "images").resolve("small") == image
    assert image.initrd.stat().st_size < 12_000_000
    sizes = {package.name: package.size for package in image.manifest.packages}
    assert (sizes["dash"] > 100_000, sizes["apt"] < 5000, "perl" in sizes) == (True, True, False)
    assert {rule.rule: rule.size > 0 for rule in image.manifest.stripped} == {"package-manager": True}

    listed = subprocess.run(
        ["unsquashfs", "-l", image.root], check=True, capture_output=True, text=True
    ).stdout
    files = {line.removeprefix("squashfs-root") for line in listed.splitlines()}
    assert {"/etc/greeting", "/made", "/etc/machine-id", "/usr/share"} <= files
    assert {f"/usr/lib/modules/{image.manifest.kernel_version}/modules.dep.bin"} <= files
    assert any(path.endswith("/dummy.ko") for path in files)
    assert not {"/etc/hostname", "/usr/share/doc"} & files

    shutil.rmtree(state_dir / "cache/packages")
    again = await building.build(loaded, state_dir, "small", quiet)
    assert again.digest == image.digest
    assert left_behind(state_dir) == []


async def test_the_same_packages_are_not_installed_again(
    state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if Library(state_dir / "images").tag("small") is None:  # the test above was not run
        await building.build(load(tmp_path, RECIPE), state_dir, "small", quiet)
    monkeypatch.setattr(packages, "_bootstrap", None)
    changed = RECIPE.replace('"touch /made"', '"touch /other"') + EXTRAS
    changed = changed.replace(
        "files = {", 'files = { "/etc/site.conf" = { source = "site.conf", template = true },'
    )
    (tmp_path / "site.conf").write_text("for $site")
    image = await building.build(load(tmp_path, changed), state_dir, "changed", quiet)
    tree = tmp_path / "tree"
    subprocess.run(["unsquashfs", "-q", "-n", "-d", tree, image.root], check=True)
    assert ((tree / "other").exists(), (tree / "made").exists()) == (True, False)
    assert (tree / "etc/site.conf").read_text() == "for a.example"
    keys = tree / "home/eve/.ssh/authorized_keys"
    assert (keys.read_text(), keys.stat().st_mode & 0o777) == ("ssh-ed25519 AAAA eve\n", 0o600)
    assert keys.stat().st_uid == keys.parent.stat().st_uid >= 1000
    groups = (tree / "etc/group").read_text().splitlines()
    assert next(line for line in groups if line.startswith("adm:")).endswith(":eve")
    assert "eve:!" in (tree / "etc/shadow").read_text()  # no password opens it


async def test_an_image_is_made_of_what_docker_exports(state_dir: Path, tmp_path: Path) -> None:
    images = [await building.build(load(tmp_path, FOREIGN), state_dir, "foreign", quiet) for _ in range(2)]
    assert images[0].digest == images[1].digest
    listed = subprocess.run(["unsquashfs", "-l", images[0].root], capture_output=True, text=True, check=True)
    assert "squashfs-root/sbin/init" in listed.stdout
    assert "/dummy.ko" in listed.stdout
    assert images[0].manifest.packages == ()


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
        await building.build(loaded, state_dir, "bad", quiet)
    assert left_behind(state_dir) == []
    assert Library(state_dir / "images").tag("bad") is None


@pytest.mark.parametrize(
    ("stage", "share", "text"),
    [
        ("packages", None, RECIPE),
        ("root file system", 0.3, RECIPE.replace("modules", 'packages = ["hostname"]\nmodules')),
        ("kernel", None, RECIPE),
        ("squashfs", 0.01, RECIPE),
    ],
)
async def test_a_build_interrupted_at_any_stage_leaves_nothing(
    stage: str, share: float | None, text: str, state_dir: Path, tmp_path: Path
) -> None:
    reached = asyncio.Event()

    def progress(name: str, done: float | None) -> None:
        if name == stage and (share is None or (done or 0) >= share):
            reached.set()

    before = {image.digest for image in Library(state_dir / "images").list()}
    task = asyncio.ensure_future(building.build(load(tmp_path, text), state_dir, "cut", progress))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left_behind(state_dir) == []
    assert Library(state_dir / "images").tag("cut") is None
    assert {image.digest for image in Library(state_dir / "images").list()} == before
    assert not list((state_dir / "cache").glob("packages/*.new"))


@pytest.mark.parametrize(
    ("stage", "share", "spare", "text"),
    [
        ("root file system", 0.05, 0, 'name = "new"\npackages = ["libtext-iconv-perl"]'),
        ("kernel", None, 0, FOREIGN),
        ("squashfs", None, 6_000_000, FOREIGN),
    ],
    ids=["Debian's packages", "kernel", "squashfs"],
)
async def test_a_disk_that_gets_full_while_building_is_told_and_leaves_the_library_as_it_was(
    stage: str, share: float | None, spare: int, text: str, state_dir: Path, tmp_path: Path
) -> None:
    if Library(state_dir / "images").tag("foreign") is None:  # what is cached must be there
        await building.build(load(tmp_path, FOREIGN), state_dir, "foreign", quiet)
    filled: list[Path] = []
    with small_disk(tmp_path / "small", "400M") as small:
        (small / "cache").symlink_to(state_dir / "cache")
        first = put_image(Library(small / "images"), "old")
        before = contents(small / "images")

        def progress(name: str, done: float | None) -> None:
            if not filled and (name, done) == (stage, share):
                filled.append(fill(small, spare))

        with pytest.raises(PxebootError, match=r"no space is left in .*/images: ") as caught:
            await building.build(load(tmp_path, text), small, "cut", progress)
        assert "image gc" in caught.value.hint
        filled[0].unlink()
        assert contents(small / "images") == before
        assert Library(small / "images").tags() == {"old": first.digest}
        assert not list((state_dir / "cache").glob("packages/*.new"))


def test_control_c_ends_the_command_and_everything_it_started(state_dir: Path, tmp_path: Path) -> None:
    load(tmp_path, RECIPE.replace("modules", 'packages = ["ncurses-base"]\nmodules'))
    # Who started these tests in the background has had SIGINT ignored, which its children inherit.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "pxeboot.cli.main", "image", "build"]
    process = subprocess.Popen(
        [*command, str(tmp_path), "--state-dir", str(state_dir)], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 200
    while not list((state_dir / "images").glob(".draft-*/scratch/root/usr/bin/*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert left_behind(state_dir) == []
    running = [path for path in Path("/proc").glob("[0-9]*/cmdline") if names(path, str(state_dir))]
    assert running == []


def names(cmdline: Path, text: str) -> bool:
    """Whether a process has the text in its command line; one that has just ended has not."""
    try:
        return text.encode() in cmdline.read_bytes()
    except OSError:
        return False
