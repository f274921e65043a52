"""A kernel of our own: Debian's source, the package's fragments merged over allnoconfig, and no modules."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from pxeboot.errors import PxebootError
from pxeboot.image import full_disk, kconfig
from pxeboot.image.apt import Apt
from pxeboot.image.command import CommandFailed, check_ready, run
from pxeboot.image.kernel import Kernel
from pxeboot.image.manifest import DIGEST_PATTERN
from pxeboot.resources import kernel_fragments

Report = Callable[[float | None], None]

BASE = "base"
"""The fragment that every kernel has."""
MANIFEST = "manifest.json"
PACKAGES = {
    "make": "make",
    "gcc": "gcc",
    "flex": "flex",
    "bison": "bison",
    "bc": "bc",
    "xz": "xz-utils",
    "depmod": "kmod",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
}
"""Every program a kernel build starts, and the Debian package it comes in."""
_HEADERS = {
    Path("/usr/include/libelf.h"): "libelf-dev",
    Path("/usr/include/openssl/opensslv.h"): "libssl-dev",
}

_ENVIRONMENT = {
    "KBUILD_BUILD_TIMESTAMP": "2025-01-01",
    "KBUILD_BUILD_USER": "pxeboot",
    "KBUILD_BUILD_HOST": "pxeboot",
    "KBUILD_BUILD_VERSION": "1",
}
"""Nothing of the building machine. Source: Documentation/kbuild/reproducible-builds.rst."""
_NAMED = {"LOCALVERSION": '"-pxeboot"', "MODULES": kconfig.OFF}
_VERSIONED = re.compile(r"\blinux-source-\d[^\s,(|]*")
_EXPECTED_LINES = 2900
"""What make says for all fragments together, for the progress."""


class KernelManifest(BaseModel, frozen=True, extra="forbid"):
    """The contents of a kernel's `manifest.json`."""

    format: int = Field(default=1, ge=1, le=1)
    release: str
    """As `uname -r` says it."""
    source: str
    """Debian's source package and its version."""
    fragments: tuple[str, ...]
    config_sha256: str = Field(pattern=DIGEST_PATTERN)
    """Of the merged fragments."""
    sha256: str = Field(pattern=DIGEST_PATTERN)
    """Of the kernel."""
    size: int = Field(ge=0)
    """Bytes of the kernel."""


@dataclass(frozen=True, slots=True)
class Fragments:
    """Fragments that fit together."""

    names: tuple[str, ...]
    settings: Mapping[str, str]

    @property
    def text(self) -> str:
        """The merged configuration, for KCONFIG_ALLCONFIG."""
        return kconfig.encode(self.settings)

    @property
    def sha256(self) -> str:
        """The digest of the merged configuration."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def load_fragments(names: Iterable[str], folder: Path | None = None) -> Fragments:
    """Read `base` and the named fragments, in a fixed order, so that it does not matter how they were given.

    Raises PxebootError for a name there is none of, and for two that contradict.
    """
    folder = folder or kernel_fragments()
    known = sorted(path.stem for path in folder.glob("*.config"))
    chosen = sorted(set(names) - {BASE})
    for name in chosen:
        if name not in known:
            raise PxebootError(
                f"there is no kernel fragment {name!r}",
                f"choose among: {', '.join(item for item in known if item != BASE)}",
            )
    files = {name: folder / f"{name}.config" for name in (BASE, *chosen)}
    parsed = {name: kconfig.parse(path.read_text(), path.name) for name, path in files.items()}
    return Fragments(tuple(chosen), kconfig.merge({**parsed, "every kernel": _NAMED}))


def read_manifest(kernel: Kernel) -> KernelManifest:
    """What a kernel of ours says of itself. Raises PxebootError."""
    path = kernel.folder / MANIFEST
    try:
        return KernelManifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise PxebootError(
            f"{path} is damaged: {error}", "delete its folder and build the kernel again"
        ) from None


async def fetch(fragments: Fragments, apt: Apt, cache: Path, scratch: Path, report: Report) -> Kernel:
    """The kernel of these fragments, from `cache` when source and configuration are the same as before.

    Building takes minutes; `report` gets the share that is done. Raises PxebootError.
    """
    package, version = await _versioned(apt, "linux-source")
    key = hashlib.sha256(f"{package} {version}\n{fragments.text}".encode()).hexdigest()
    folder = cache / "kernels" / f"custom-{key[:16]}"
    if not folder.is_dir():
        check_ready(PACKAGES)
        _check_headers()
        source = await _unpack(apt, package, version, scratch)
        await configure(source, fragments)
        await _compile(source, report)
        await _keep(source, fragments, f"{package} {version}", scratch, folder)
    return Kernel(folder)


def _check_headers() -> None:
    missing = [package for path, package in _HEADERS.items() if not path.is_file()]
    if missing:
        names = " ".join(missing)
        raise PxebootError(f"these Debian packages are missing: {names}", f"apt-get install {names}")


async def _versioned(apt: Apt, package: str) -> tuple[str, str]:
    """Follow the meta package to the one with the source in it; its name and version."""
    fields = await apt.describe(package)
    below = _VERSIONED.search(fields.get("Depends", ""))
    return await _versioned(apt, below[0]) if below else (package, fields["Version"])


async def _unpack(apt: Apt, package: str, version: str, scratch: Path) -> Path:
    """Fetch the source and unpack it; return its folder."""
    unpacked = scratch / "linux"
    unpacked.mkdir()
    archive = await apt.download(package, version, unpacked)
    await run("dpkg-deb", "-x", archive, unpacked)
    archive.unlink()
    tar = unpacked / "usr/src" / f"{package}.tar.xz"
    await run("tar", "-xJf", tar, directory=unpacked)
    tar.unlink()
    return unpacked / package


async def configure(source: Path, fragments: Fragments) -> None:
    """Write `.config` of a kernel source. Raises PxebootError naming every setting that did not survive."""
    asked = source / "pxeboot.config"
    asked.write_text(fragments.text)
    await run("make", "-s", "allnoconfig", directory=source, environment={"KCONFIG_ALLCONFIG": str(asked)})
    got = kconfig.parse((source / ".config").read_text(), ".config")
    gone = kconfig.lost(fragments.settings, got, _kconfig_files(source))
    if gone:
        told = "\n  ".join(str(item) for item in gone)
        raise PxebootError(
            f"{len(gone)} kernel settings did not survive the merge:\n  {told}",
            "add what they depend on to a fragment, or take them out",
        )


def _kconfig_files(source: Path) -> Iterator[str]:
    return (path.read_text() for path in sorted(source.rglob("Kconfig*")) if path.is_file())


async def _compile(source: Path, report: Report) -> None:
    said = 0

    def on_line(line: str) -> None:
        nonlocal said
        said += 1
        report(min(0.99, said / _EXPECTED_LINES))

    try:
        await run(
            "make", f"-j{os.cpu_count() or 1}", "bzImage",
            directory=source, environment=_ENVIRONMENT, on_line=on_line,
        )  # fmt: skip
    except CommandFailed as error:
        if full_disk.reason(error):
            raise
        faults = [line for line in error.lines if "error" in line.lower()][:5]
        raise CommandFailed("make bzImage", 2, faults or error.lines) from None


async def _keep(source: Path, fragments: Fragments, package: str, scratch: Path, folder: Path) -> None:
    """Lay kernel, configuration and manifest out as an unpacked kernel package is, and cache them.

    `modules.builtin` goes along, so that `modprobe nfs` on the node finds it done.
    """
    release = (source / "include/config/kernel.release").read_text().strip()
    made = scratch / "custom"
    modules = made / "lib/modules" / release
    for path in (made / "boot", modules):
        path.mkdir(parents=True)
    vmlinuz = made / "boot" / f"vmlinuz-{release}"
    shutil.copyfile(source / "arch/x86/boot/bzImage", vmlinuz)
    shutil.copyfile(source / ".config", made / "boot" / f"config-{release}")
    for name in ("modules.builtin", "modules.builtin.modinfo"):
        shutil.copyfile(source / name, modules / name)
    (modules / "modules.order").touch()
    await run("depmod", "-b", made, release)
    data = vmlinuz.read_bytes()
    manifest = KernelManifest(
        release=release,
        source=package,
        fragments=fragments.names,
        config_sha256=fragments.sha256,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
    )
    (made / MANIFEST).write_text(json.dumps(manifest.model_dump(mode="json"), indent=2) + "\n")
    folder.parent.mkdir(parents=True, exist_ok=True)
    os.sync()  # or a crash could leave a cached kernel of empty files
    made.rename(folder)
