"""From a recipe to an entry of the library: the steps, in order, and which of them go side by side."""

import asyncio
import hashlib
import shutil
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pxeboot.errors import PxebootError
from pxeboot.image import base, curl, custom_kernel, distribution, initrd, kernel, packages, rootfs, squashfs
from pxeboot.image.apt import Apt
from pxeboot.image.command import check_ready
from pxeboot.image.configure import configure
from pxeboot.image.kernel import Kernel, ModuleIndex
from pxeboot.image.library import Draft, Image, Library
from pxeboot.image.manifest import Artefact, Artefacts, Manifest, Stripped
from pxeboot.image.packages import Plan
from pxeboot.image.recipe import Recipe
from pxeboot.image.recipes import LoadedRecipe
from pxeboot.image.signature import public_key
from pxeboot.image.strip import strip
from pxeboot.image.tree import EPOCH, sizes
from pxeboot.resources import initrd_files

Progress = Callable[[str, float | None], None]
"""Told the name of a step and the share of it that is done, 0 to 1; None: under way, nobody knows how far."""

_CLOCK_GRAIN_SECONDS = 1.0
"""File times come from a coarser clock than ours and may lie a little before it."""


async def build(
    loaded: LoadedRecipe,
    state_dir: Path,
    tag: str,
    progress: Progress,
    key: Ed25519PrivateKey | None = None,
    trusted: Collection[str] = (),
) -> Image:
    """Make the image, put it into the library below `state_dir`, and let `tag` point to it.

    With a `key` it is signed before the tag moves; where there are `trusted` keys, it must be one of them.
    When this fails or is cancelled, no mount, no process and no half entry is left. Raises PxebootError.
    """
    check_ready()
    if trusted and (key is None or public_key(key) not in trusted):
        raise PxebootError(
            "what is built here would not be signed by a trusted key",
            "name the operator's key as images.key, and its public key in images.trusted",
        )
    library, cache = Library(state_dir / "images", trusted), state_dir / "cache"
    with library.draft() as draft:
        progress("packages", None)
        apt, sources = await packages.open_apt(loaded.recipe, cache)
        wanted = await packages.plan(loaded.recipe, apt, sources) if loaded.base is None else None
        progress("packages", 1.0)
        began = time.time() - _CLOCK_GRAIN_SECONDS
        tree = draft.scratch / "root"
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_root(loaded, wanted, tree, cache, draft, progress))
                starting = group.create_task(_kernel_and_initrd(loaded.recipe, apt, cache, draft, progress))
        except* (PxebootError, OSError) as failures:
            raise _first(failures) from None
        manifest = await _finish(loaded.recipe, starting.result(), tree, draft, began, progress)
        image = library.put(draft, manifest)
        if key is not None:
            library.sign(image, key)
        library.set_tag(tag, image.digest)
    return image


def _first(failures: BaseExceptionGroup[PxebootError | OSError]) -> PxebootError | OSError:
    error = failures.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _root(
    loaded: LoadedRecipe, wanted: Plan | None, tree: Path, cache: Path, draft: Draft, progress: Progress
) -> None:
    report = partial(progress, "root file system")
    report(0.0)
    if wanted is None:
        assert loaded.base is not None
        await base.unpack(loaded.base, tree, draft.scratch, report)
    else:
        await packages.install(wanted, tree, cache, draft.scratch, report)
    await configure(tree, loaded.recipe, loaded.sources)
    report(1.0)


async def _kernel_and_initrd(
    recipe: Recipe, apt: Apt, cache: Path, draft: Draft, progress: Progress
) -> Kernel:
    progress("kernel", None)
    found = await _kernel(recipe, apt, cache, draft.scratch, partial(progress, "kernel"))
    ModuleIndex.read(found).closure(recipe.modules)  # a wrong name is told now, not when Debian is installed
    shutil.copyfile(found.vmlinuz, draft.entry / "kernel")
    progress("kernel", 1.0)
    progress("curl", None)
    static_curl = await curl.fetch(cache, draft.scratch, partial(progress, "curl"))
    progress("curl", 1.0)
    progress("initrd", None)
    await initrd.make(found, static_curl, initrd_files(), draft.entry / "initrd", draft.scratch)
    progress("initrd", 1.0)
    return found


def _kernel_package(recipe: Recipe) -> str:
    named = "kernel" in recipe.model_fields_set
    return recipe.kernel if named else distribution.of_suite(recipe.suite).kernel


async def _kernel(
    recipe: Recipe, apt: Apt, cache: Path, scratch: Path, report: Callable[[float | None], None]
) -> Kernel:
    if recipe.fragments is None:
        return await kernel.fetch(_kernel_package(recipe), apt, cache, scratch)
    fragments = custom_kernel.load_fragments(recipe.fragments)
    return await custom_kernel.fetch(fragments, apt, cache, scratch, report)


async def _finish(
    recipe: Recipe, used: Kernel, tree: Path, draft: Draft, began: float, progress: Progress
) -> Manifest:
    progress("squashfs", None)
    await used.install_modules(ModuleIndex.read(used).closure(recipe.modules), _modules_below(tree))
    listed = await rootfs.installed(tree)
    stripped = await strip(tree, recipe.strip, draft.scratch)
    rootfs.finish(tree, recipe.drop, began)
    target = draft.entry / "root.squashfs"
    await squashfs.make(tree, target, recipe.squashfs, EPOCH, partial(progress, "squashfs"))
    left = sizes(tree)
    return Manifest(
        recipe=recipe.name,
        suite=recipe.suite,
        kernel_version=used.release,
        artefacts=Artefacts(
            root=_artefact(target),
            kernel=_artefact(draft.entry / "kernel"),
            initrd=_artefact(draft.entry / "initrd"),
        ),
        unpacked_bytes=sum(left.values()),
        packages=tuple(package.weighed(left) for package in listed),
        stripped=tuple(Stripped(rule=rule, size=size) for rule, size in stripped),
    )


def _modules_below(tree: Path) -> Path:
    """Where `lib/modules` is: a foreign tree may have a /lib of its own."""
    return tree if (tree / "lib").is_dir() and not (tree / "lib").is_symlink() else tree / "usr"


def _artefact(path: Path) -> Artefact:
    with path.open("rb") as file:
        return Artefact(sha256=hashlib.file_digest(file, "sha256").hexdigest(), size=path.stat().st_size)
