"""Parts that several tests build on: a small image in a library, and a site."""

import hashlib
from ipaddress import IPv4Address
from pathlib import Path

from pxeboot.config import parse
from pxeboot.image.library import Image, Library
from pxeboot.image.manifest import Artefact, Artefacts, Manifest
from pxeboot.site import Network, Site

KERNEL, INITRD, ROOT = b"kernel" * 1000, b"initrd" * 3000, bytes(range(256)) * 4096

SITE = """
[server]
state_dir = "STATE"

[[network]]
interface = "lo"
subnet = "127.0.0.0/8"
pool = ["127.0.0.100-127.0.0.199"]

[[group]]
name = "web"
image = "web"
match = ["52:54:00:*"]
kernel_args = "console=ttyS0"
"""


def put_image(library: Library, tag: str = "web", root: bytes = ROOT) -> Image:
    """Make an image of a few bytes and let the tag point to it."""
    contents = {"root": root, "kernel": KERNEL, "initrd": INITRD}
    facts = {
        name: Artefact(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        for name, data in contents.items()
    }
    manifest = Manifest(
        recipe="test",
        suite="bookworm",
        kernel_version="6.1",
        artefacts=Artefacts(**facts),
        unpacked_bytes=len(root),
        packages=(),
    )
    with library.draft() as draft:
        for name, data in contents.items():
            (draft.entry / (f"{name}.squashfs" if name == "root" else name)).write_bytes(data)
        image = library.put(draft, manifest)
    library.set_tag(tag, image.digest)
    return image


def make_site(state_dir: Path, text: str = SITE) -> Site:
    """A site on the loopback interface."""
    config = parse(text.replace("STATE", str(state_dir)))
    return Site(config, tuple(Network(item, IPv4Address("127.0.0.1")) for item in config.network))
