"""What each strip rule of a recipe saves: bytes unpacked, and as SquashFS, one rule after the other."""

import argparse
import asyncio
import os
import platform
import signal
import tempfile
from datetime import date
from pathlib import Path

from pxeboot.image import packages, recipes, rootfs, squashfs
from pxeboot.image.configure import configure
from pxeboot.image.recipe import SquashFs
from pxeboot.image.recipes import LoadedRecipe
from pxeboot.image.rules import RULES
from pxeboot.image.strip import strip
from pxeboot.image.tree import EPOCH, unpacked_bytes


async def tree_of(loaded: LoadedRecipe, tree: Path, cache: Path, scratch: Path) -> None:
    """The root as a build has it before anything is left out, but for kernel modules."""
    apt, sources = await packages.open_apt(loaded.recipe, cache)
    wanted = await packages.plan(loaded.recipe, apt, sources)
    await packages.install(wanted, tree, cache, scratch, lambda share: None)
    await configure(tree, loaded.recipe, loaded.sources)
    rootfs.finish(tree, (), float("inf"))


async def packed(tree: Path, scratch: Path, settings: SquashFs) -> int:
    """Bytes as SquashFS."""
    target = scratch / "packed"
    await squashfs.make(tree, target, settings, EPOCH, lambda share: None)
    size = target.stat().st_size
    target.unlink()
    return size


async def main() -> None:
    """Print a table, and write it to `bench/results`."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--state-dir", type=Path, default=Path(".demo"))
    options.add_argument("--recipe", default="web")
    options.add_argument("--level", type=int, help="zstd's, for a faster run; default: the recipe's")
    chosen = options.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was made is removed then too
    loaded = recipes.load(chosen.recipe)
    settings = SquashFs(level=chosen.level) if chosen.level else loaded.recipe.squashfs
    with tempfile.TemporaryDirectory(prefix="bench-strip-") as name:
        scratch = Path(name)
        tree = scratch / "root"
        await tree_of(loaded, tree, chosen.state_dir.absolute() / "cache", scratch)
        sizes = [("before", unpacked_bytes(tree), await packed(tree, scratch, settings))]
        for rule in (rule for rule in RULES if rule in loaded.recipe.strip):
            await strip(tree, [rule], scratch)
            sizes.append((rule, unpacked_bytes(tree), await packed(tree, scratch, settings)))
    report(loaded.recipe.name, settings, sizes)


def report(name: str, settings: SquashFs, sizes: list[tuple[str, int, int]]) -> None:
    """Print and keep the table."""
    (_, unpacked, squashed), *steps = sizes
    lines = [f"| | | {unpacked / 1e6:.1f} MB | {squashed / 1e6:.1f} MB |"]
    for rule, now, now_squashed in steps:
        saved = f"{(unpacked - now) / 1e6:.1f} MB | {(squashed - now_squashed) / 1e6:.2f} MB"
        lines.append(f"| {rule} | {RULES[rule].what} | {saved} |")
        unpacked, squashed = now, now_squashed
    lines.append(f"| what is left | | {unpacked / 1e6:.1f} MB | {squashed / 1e6:.1f} MB |")
    text = (
        f"# What each strip rule of the recipe `{name}` saves\n\n"
        "`python -m bench.strip`: one rule after the other, in the order of the table, as a build applies\n"
        "them; sums of the sizes of files, and the SquashFS made of them "
        f"({settings.compression} {settings.level}).\nWithout kernel modules.\n\n"
        f"{date.today()}, {os.cpu_count()} cores, Linux {platform.release()}.\n\n"
        "| rule | leaves out | unpacked | SquashFS |\n|---|---|---|---|\n"
    )
    text += "\n".join(lines) + "\n"
    print(text)
    Path(f"bench/results/strip-{date.today()}.md").write_text(text)


if __name__ == "__main__":
    asyncio.run(main())
