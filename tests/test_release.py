"""What is run before a release: the kernel with all fragments is built, and boots by BIOS and UEFI.

    PXEBOOT_RELEASE=1 script/test tests/test_release.py

It takes a quarter of an hour on two cores, nearly all of it the compiler's.
"""

import asyncio
import os
from base64 import b64encode
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pxeboot.image import build as building
from pxeboot.image import custom_kernel, recipes
from pxeboot.image.kernel import Kernel
from pxeboot.image.library import Image, Library
from pxeboot.image.packages import open_apt
from pxeboot.image.recipe import Recipe
from pxeboot.lab.qemu import Firmware
from pxeboot.lab.scenario import Lab
from tests.conftest import BUILDING
from tests.lab.conditions import needs_emulator, needs_network
from tests.test_boot import asks, scenario, until

pytestmark = [
    pytest.mark.boot,
    pytest.mark.timeout(5400),
    pytest.mark.skipif("PXEBOOT_RELEASE" not in os.environ, reason="run for a release: PXEBOOT_RELEASE=1"),
]

NAMES = ("director", "nfs", "nic", "virt")
RECIPE = f"""
name = "release"
extends = "web"
kernel = "custom:{",".join(NAMES)}"
"""
PAGE = "<?php echo php_uname('r');"


@pytest.fixture(scope="module")
def state_dir(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With what the image `web` is made of in its cache, but no kernel."""
    state_dir = tmp_path_factory.mktemp("state")
    (state_dir / "cache").mkdir()
    for part in ("apt", "curl", "packages"):
        (state_dir / "cache" / part).symlink_to(BUILDING / "cache" / part)
    return state_dir


@pytest.fixture(scope="module")
def kernel(state_dir: Path) -> Kernel:
    """The kernel, compiled."""

    async def made() -> Kernel:
        apt, _ = await open_apt(Recipe(name="kernel"), state_dir / "cache")
        fragments = custom_kernel.load_fragments(NAMES)
        with TemporaryDirectory(dir=state_dir) as scratch:
            return await custom_kernel.fetch(
                fragments, apt, state_dir / "cache", Path(scratch), lambda share: None
            )

    return asyncio.run(made())


def test_the_kernel_with_all_fragments_is_small_and_has_no_modules(kernel: Kernel) -> None:
    made = custom_kernel.read_manifest(kernel)
    assert (made.fragments, made.release, kernel.modular) == (NAMES, kernel.release, False)
    assert made.size == kernel.vmlinuz.stat().st_size <= 6_000_000


@needs_network
@needs_emulator
async def test_it_boots_by_bios_and_by_uefi(kernel: Kernel, state_dir: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    (tmp_path / recipes.FILE_NAME).write_text(RECIPE)
    loaded = recipes.load(str(tmp_path))
    image = await building.build(loaded, state_dir, "release", lambda step, share: steps.append(step))
    assert steps.count("kernel") == 2  # begun and done: it comes from the cache
    assert image.initrd.stat().st_size <= 3_000_000
    assert Library(state_dir / "images").resolve("release").kernel.read_bytes() == kernel.vmlinuz.read_bytes()
    for firmware in (Firmware.BIOS, Firmware.UEFI):
        async with Lab(scenario(state_dir, image="release", firmware=firmware)) as lab:
            page = {"data": b64encode(PAGE.encode()).decode()}
            files = {"files": {"/var/www/html/kernel.php": page}}
            await asks(lab, "PATCH", f"/nodes/{lab.machines[0].mac}", files)
            await lab.power_on()
            node = await until(lab, lambda node: node.stage == "ready")
            assert (node.failure, node.image) == ("", image.digest)
            assert await lab.page(str(node.address), "/kernel.php") == kernel.release
