"""`pxeboot image`, the commands that move, carry, check and remove images of the library."""

import asyncio
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.table import Table

from pxeboot.cli.bars import Bars
from pxeboot.cli.client import ask
from pxeboot.cli.options import AsJson, ConfigPath, StateDir, images_config, state_dir_of
from pxeboot.errors import PxebootError
from pxeboot.image import archive, retention
from pxeboot.image.library import Image, Library
from pxeboot.image.signature import public_key, read_private_key, trusted_keys
from pxeboot.inventory.store import Store, open_store, store_exists
from pxeboot.preflight import server_runs

Name = Annotated[str, typer.Argument(help="A tag, a digest, or the beginning of one.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for name, command in _COMMANDS.items():
        app.command(name)(command)


def signing_key(config: Path | None) -> Ed25519PrivateKey | None:
    """The operator's key that the configuration names, if it names one. Raises PxebootError."""
    path = images_config(config).key
    return read_private_key(path) if path is not None else None


def tag(
    name: Annotated[str, typer.Argument(help="The tag to move or make.")],
    image: Name,
    config: ConfigPath = None,
    state_dir: StateDir = None,
) -> None:
    """Let a tag point to an image; nodes get it from their next boot on."""
    library = _library(config, state_dir)
    found = library.resolve(image)
    library.set_tag(name, found.digest)
    typer.echo(f"{name} is now {found.digest}")


def rollback(
    name: Annotated[str, typer.Argument(help="The tag to move back.")],
    config: ConfigPath = None,
    state_dir: StateDir = None,
) -> None:
    """Let a tag point to the image it had before; once more goes further back."""
    typer.echo(f"{name} is now {_library(config, state_dir).rollback(name).digest} again")


def gc(
    keep: Annotated[int, typer.Option(min=1, help="How many of each tag's last images stay")] = 3,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go")] = False,
    config: ConfigPath = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Remove images that no node runs and that are not among the last of any tag."""
    folder = state_dir_of(config, state_dir)
    library = Library(folder / "images")
    with library.alone():  # nobody builds meanwhile, and what a killed build left is swept
        histories = {name: library.history(name) for name in library.tags()}
        images = {image.digest: image for image in library.list()}
        running = _running(folder)  # after the tags: who was told an image of a tag before is in here
        doomed = [images[digest] for digest in retention.removable(images, histories, running, keep)]
        sizes = {image.digest: _size(image) for image in doomed}
        for image in doomed if not dry_run else ():
            library.remove(image.digest)
    if as_json:
        typer.echo(
            json.dumps([{"digest": digest, "bytes": size} for digest, size in sizes.items()], indent=2)
        )
        return
    verb = "would go" if dry_run else "removed"
    for image in doomed:
        typer.echo(f"{verb}: {image.digest[:12]} {image.manifest.recipe}, {sizes[image.digest] / 1e6:.1f} MB")
    typer.echo(f"{len(doomed)} of {len(images)} images {verb}, {sum(sizes.values()) / 1e6:.1f} MB")


def verify(
    names: Annotated[list[str] | None, typer.Argument(help="Tags or digests; none: every image.")] = None,
    config: ConfigPath = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Read every byte of images, and check digests and signatures."""
    library = Library(state_dir_of(config, state_dir) / "images")
    images = [library.resolve(name) for name in names] if names else library.list()
    trusted = trusted_keys(images_config(config))
    with Bars() as bars:
        faults = {
            image.digest: _faults(image, trusted, partial(bars.show, image.digest[:12])) for image in images
        }
    if as_json:
        typer.echo(
            json.dumps([{"digest": digest, "faults": found} for digest, found in faults.items()], indent=2)
        )
    else:
        table = Table("IMAGE", "SIGNED BY", "FOUND", box=None)
        for image in images:
            by = image.signature.key[:16] if image.signature else "nobody"
            table.add_row(image.digest[:12], by, "; ".join(faults[image.digest]) or "good")
        Console().print(table, highlight=False)
    if broken := sum(map(bool, faults.values())):
        raise PxebootError(
            f"{broken} of {len(images)} images failed",
            "build them again, or import them again; do not boot them",
        )


def sign(
    name: Name,
    key: Annotated[
        Path | None, typer.Option(help="PEM file; default: images.key of the configuration")
    ] = None,
    config: ConfigPath = None,
    state_dir: StateDir = None,
) -> None:
    """Sign an image with the operator's Ed25519 key."""
    private = read_private_key(key) if key is not None else signing_key(config)
    if private is None:
        raise PxebootError("there is no key to sign with", "give --key, or images.key in the configuration")
    library = Library(state_dir_of(config, state_dir) / "images")
    image = library.resolve(name)
    library.sign(image, private)
    typer.echo(f"{image.digest} is signed by {public_key(private)}")


def export(
    name: Name,
    target: Annotated[Path, typer.Argument(help="The file to write.")],
    config: ConfigPath = None,
    state_dir: StateDir = None,
) -> None:
    """Write an image, with its signature, to one file."""
    image = Library(state_dir_of(config, state_dir) / "images").resolve(name)
    with Bars() as bars:
        archive.export(image, target, partial(bars.show, "writing"))
    typer.echo(f"{target}: {image.digest}")


def import_(
    source: Annotated[Path, typer.Argument(help="A file that `pxeboot image export` wrote.")],
    tag: Annotated[str | None, typer.Option(help="Tag to move; default: none.")] = None,
    config: ConfigPath = None,
    state_dir: StateDir = None,
) -> None:
    """Put the image of an exported file into the library, and let a tag point to it."""
    library = _library(config, state_dir)
    with Bars() as bars:
        image = archive.take(source, library, partial(bars.show, "reading"))
    if tag is not None:
        library.set_tag(tag, image.digest)
    typer.echo(f"{tag} is now {image.digest}" if tag else f"{image.digest} is in the library")


_COMMANDS: dict[str, Callable[..., None]] = {
    "tag": tag,
    "rollback": rollback,
    "gc": gc,
    "verify": verify,
    "sign": sign,
    "export": export,
    "import": import_,
}


def _library(config: Path | None, state_dir: Path | None) -> Library:
    """The library, in which tags only move to what is signed as the configuration asks for."""
    return Library(state_dir_of(config, state_dir) / "images", trusted_keys(images_config(config)))


def _faults(image: Image, trusted: tuple[str, ...], report: Callable[[float | None], None]) -> list[str]:
    found = archive.verify(image, report)
    if trusted and (image.signature is None or image.signature.key not in trusted):
        found.append("no trusted key has signed it")
    return found


def _size(image: Image) -> int:
    return sum(path.stat().st_size for path in image.path.iterdir())


def _running(state_dir: Path) -> set[str]:
    """Digests of the images that nodes run or load, from the server or, where it is down, from its store."""
    if server_runs(state_dir):
        return {node["image"] for node in ask(state_dir, "GET", "/nodes")["nodes"]} - {""}
    if not store_exists(state_dir):
        return set()
    return asyncio.run(_in_store(open_store(state_dir)))


async def _in_store(store: Store) -> set[str]:
    try:
        boots = [await store.boot(node.mac) for node in await store.nodes()]
        return {boot.image for boot in boots if boot is not None} - {""}
    finally:
        await store.close()
