"""`pxeboot image`: build images, and see which there are."""

import asyncio
import json
import tempfile
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pxeboot.cli import image_library
from pxeboot.cli.bars import Bars
from pxeboot.cli.options import AsJson, ConfigPath, StateDir, images_config, state_dir_of
from pxeboot.image import compare, recipes
from pxeboot.image.build import build as build_image
from pxeboot.image.library import Image, Library
from pxeboot.image.manifest import Manifest
from pxeboot.image.rules import RULES
from pxeboot.image.signature import trusted_keys

app = typer.Typer(help="Build images, and see which there are.", no_args_is_help=True)
image_library.register(app)

_MEGABYTE = 1_000_000


@app.command()
def build(
    recipe: Annotated[str, typer.Argument(help='A recipe file, its folder, or a shipped one, like "web".')],
    tag: Annotated[str | None, typer.Option(help="Tag to move; default: the recipe's name.")] = None,
    config: ConfigPath = None,
    state_dir: StateDir = None,
) -> None:
    """Build an image from a recipe, put it into the library and move the tag."""
    loaded = recipes.load(recipe)
    name, folder = tag or loaded.recipe.name, state_dir_of(config, state_dir)
    key, trusted = image_library.signing_key(config), trusted_keys(images_config(config))
    with Bars() as bars:
        image = asyncio.run(build_image(loaded, folder, name, bars.show, key, trusted))
    sizes = image.manifest.artefacts
    Console().print(
        f"{name} is now {image.digest}\n"
        f"root {_megabytes(sizes.root.size)} ({_megabytes(image.manifest.unpacked_bytes)} unpacked), "
        f"kernel {_megabytes(sizes.kernel.size)}, initrd {_megabytes(sizes.initrd.size)}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


@app.command("list")
def list_images(config: ConfigPath = None, state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """List the images in the library, newest first."""
    library = Library(state_dir_of(config, state_dir) / "images")
    if as_json:
        typer.echo(json.dumps([_summary(image, library) for image in library.list()], indent=2))
        return
    table = Table("IMAGE", "TAGS", "RECIPE", "SUITE", "KERNEL", "ROOT", "UNPACKED", box=None)
    for image in library.list():
        made = image.manifest
        table.add_row(
            image.digest[:12], ", ".join(_tags(image, library)), made.recipe, made.suite, made.kernel_version,
            _megabytes(made.artefacts.root.size), _megabytes(made.unpacked_bytes),
        )  # fmt: skip
    Console().print(table)


@app.command()
def rules(as_json: AsJson = False) -> None:
    """List the rules that a recipe's `strip` may name, and why nothing misses what they leave out."""
    if as_json:
        listed = [{"rule": name, "what": rule.what, "why": rule.why} for name, rule in RULES.items()]
        typer.echo(json.dumps(listed, indent=2))
        return
    table = Table("RULE", "LEAVES OUT", "WHY", box=None, padding=(0, 2, 0, 0))
    for name, rule in RULES.items():
        table.add_row(name, rule.what, rule.why)
    Console().print(table, highlight=False)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A tag, a digest, or the beginning of one.")],
    config: ConfigPath = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Show what an image is made of."""
    library = Library(state_dir_of(config, state_dir) / "images")
    image = library.resolve(name)
    if as_json:
        parts = image.manifest.model_dump(mode="json", include={"packages"})
        history = [step.model_dump() for step in library.history(name)]
        typer.echo(json.dumps(_summary(image, library) | parts | {"history": history}, indent=2))
        return
    made, artefacts = image.manifest, image.manifest.artefacts
    table = Table(box=None, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("image", image.digest)
    table.add_row("tags", ", ".join(_tags(image, library)))
    for step in library.history(name):
        verb = "went back to" if step.back else "pointed to"
        table.add_row(
            "", f"{name} {verb} {step.digest[:12]} on {datetime.fromtimestamp(step.since):%Y-%m-%d %H:%M}"
        )
    table.add_row("signed by", image.signature.key if image.signature else "nobody")
    table.add_row("recipe", f"{made.recipe} ({made.suite})")
    table.add_row("kernel", f"{made.kernel_version}, {_megabytes(artefacts.kernel.size)}")
    table.add_row("initrd", _megabytes(artefacts.initrd.size))
    table.add_row("root", f"{_megabytes(artefacts.root.size)}, {_megabytes(made.unpacked_bytes)} unpacked")
    table.add_row("folder", str(image.path))
    table.add_row("packages", str(len(made.packages)))
    Console().print(table, highlight=False)
    _print_sizes(made)


def _print_sizes(made: Manifest) -> None:
    """What the strip rules left out, and what is left of each package, largest first."""
    if made.stripped:
        rules = Table("LEFT OUT", "SAVED", "WHAT", box=None)
        for rule in made.stripped:
            rules.add_row(
                rule.rule, _megabytes(rule.size), RULES[rule.rule].what if rule.rule in RULES else ""
            )
        Console().print(rules, highlight=False)
    packages = Table("PACKAGE", "VERSION", "SIZE", box=None)
    for package in sorted(made.packages, key=lambda package: (-package.size, package.name)):
        packages.add_row(package.name, package.version, _kilobytes(package.size))
    other = made.unpacked_bytes - sum(package.size for package in made.packages)
    packages.add_row("of no package", "", _kilobytes(other))
    Console().print(packages, highlight=False)


@app.command()
def diff(
    before: Annotated[str, typer.Argument(help="A tag, a digest, or the beginning of one.")],
    after: Annotated[str, typer.Argument(help="What to compare it with.")],
    with_files: Annotated[bool, typer.Option("--files", help="Compare every file too; needs root")] = False,
    config: ConfigPath = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Say what changed from one image to another: packages, sizes, kernel, with --files every file."""
    library = Library(state_dir_of(config, state_dir) / "images")
    old, new = library.resolve(before), library.resolve(after)
    parts = {
        "facts": compare.facts(old.manifest, new.manifest),
        "packages": compare.packages(old.manifest, new.manifest),
    }
    if with_files:
        with Bars() as bars, tempfile.TemporaryDirectory(prefix="pxeboot-diff-") as scratch:
            bars.show("comparing files", None)
            parts["files"] = asyncio.run(compare.files(old, new, Path(scratch)))
    if as_json:
        changes = {part: [asdict(change) for change in found] for part, found in parts.items()}
        typer.echo(json.dumps({"before": old.digest, "after": new.digest, **changes}, indent=2))
        return
    table = Table("CHANGE", "WHAT", "BEFORE", "AFTER", "GROWTH", box=None)
    for change in (change for found in parts.values() for change in found):
        growth = f"{change.growth / 1000:+.1f} kB" if change.growth else ""
        table.add_row(change.kind, change.name, change.before, change.after, growth)
    Console().print(table if table.row_count else "no difference", highlight=False)


def _summary(image: Image, library: Library) -> dict[str, object]:
    return {
        "digest": image.digest,
        "tags": _tags(image, library),
        "signed_by": image.signature.key if image.signature else None,
        **image.manifest.model_dump(mode="json", exclude={"packages", "format"}),
    }


def _tags(image: Image, library: Library) -> list[str]:
    return [tag for tag, digest in library.tags().items() if digest == image.digest]


def _megabytes(size: int) -> str:
    return f"{size / _MEGABYTE:.1f} MB"


def _kilobytes(size: int) -> str:
    return f"{size / 1000:.0f} kB"
