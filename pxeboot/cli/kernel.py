"""`pxeboot kernel`: build a kernel of our own."""

import asyncio
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pxeboot.cli.bars import Bars
from pxeboot.cli.options import ConfigPath, StateDir, state_dir_of
from pxeboot.image import custom_kernel, full_disk
from pxeboot.image.kernel import Kernel
from pxeboot.image.packages import open_apt
from pxeboot.image.recipe import Recipe

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _noun() -> None:
    """Without it Typer would take the only command for the noun itself."""


@app.command()
def build(
    fragment: Annotated[
        str,
        typer.Option(help="virt, nic, nfs, director, with commas between; `base` comes by itself"),
    ],
    suite: Annotated[str, typer.Option(help="The Debian release whose source is taken")] = "bookworm",
    config: ConfigPath = None,
    state_dir: StateDir = None,
) -> None:
    """Build a kernel without modules from Debian's source, for `kernel = "custom:…"` in a recipe.

    It takes minutes the first time; the same source and configuration are not built twice.
    """
    fragments = custom_kernel.load_fragments(filter(None, fragment.split(",")))
    cache = state_dir_of(config, state_dir) / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    with Bars() as bars, full_disk.told(cache):
        kernel = asyncio.run(_build(fragments, suite, cache, bars))
    made = custom_kernel.read_manifest(kernel)
    Console().print(
        f"kernel {made.release} of {made.source}, fragments {','.join(made.fragments) or 'base alone'}\n"
        f"{made.size / 1e6:.1f} MB, configuration {made.config_sha256[:12]}: {kernel.vmlinuz}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


async def _build(fragments: custom_kernel.Fragments, suite: str, cache: Path, bars: Bars) -> Kernel:
    with tempfile.TemporaryDirectory(prefix=".kernel-", dir=cache) as scratch:
        bars.show("kernel", None)
        apt, _ = await open_apt(Recipe(name="kernel", suite=suite), cache)
        kernel = await custom_kernel.fetch(
            fragments, apt, cache, Path(scratch), lambda done: bars.show("kernel", done)
        )
        bars.show("kernel", 1.0)
    return kernel
