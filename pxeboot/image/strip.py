"""Taking out of a tree what the strip rules say, and counting what each of them saved."""

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path

from pxeboot.errors import PxebootError
from pxeboot.image import icu
from pxeboot.image.command import run
from pxeboot.image.rules import RULES, Action, StripRule
from pxeboot.image.tree import follow, remove, unpacked_bytes, walk

_LIBRARY = re.compile(rb"lib[A-Za-z0-9_.+-]+?\.so(?:\.[0-9]+)*")
"""A library's name as it stands in ELF headers, in the strings of who calls dlopen(), and in `LoadFile`
lines."""
_NAMED_AT_RUN_TIME = ("libnss_*", "libgcc_s.so*", "ld-linux*", "ld64*", "libpthread.so*", "libc.so*")
"""Loaded by names that are put together: nsswitch.conf(5); by glibc for pthread_cancel(3)."""
_LIBRARY_FOLDERS = ("usr/lib/*-linux-gnu", "usr/lib")
_LINKER_CACHE = "etc/ld.so.cache"
_APACHE_DRIVERS = {"apr_ldap*": "mod_ldap.so", "apr_dbd_*": "mod_dbd.so"}
"""Which module asks apr-util for which of its drivers."""
_PERL = re.compile(rb"#!.*\bperl\b")
_PROGRAM_FOLDERS = ("bin", "sbin")


async def strip(tree: Path, names: Iterable[str], scratch: Path) -> list[tuple[str, int]]:
    """Apply the rules to `tree`, in the order of the table; the bytes that each one saved, by name.

    `scratch` is a folder for what is made on the way. Raises PxebootError when a rule would break something
    that the tree has.
    """
    saved: list[tuple[str, int]] = []
    before = unpacked_bytes(tree)
    for name in (name for name in RULES if name in set(names)):
        await _apply(RULES[name], tree, scratch)
        after = unpacked_bytes(tree)
        saved.append((name, before - after))
        before = after
    return saved


async def _apply(rule: StripRule, tree: Path, scratch: Path) -> None:
    if rule.paths:
        remove(tree, rule.paths, rule.keep)
    if rule.action is not None:
        await _ACTIONS[rule.action](tree, scratch)


async def _perl_scripts(tree: Path, scratch: Path) -> None:
    for path in _files(tree):
        if path.parent.name in _PROGRAM_FOLDERS and _PERL.match(_beginning(path)):
            path.unlink()


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


async def _apache_modules(tree: Path, scratch: Path) -> None:
    _keep_loaded_modules(tree)


def _keep_loaded_modules(tree: Path) -> None:
    """A module is enabled when a `LoadModule` line of `mods-enabled` or of another loaded file names it."""
    texts = [*tree.glob("etc/apache2/*.conf"), *tree.glob("etc/apache2/*-enabled/*")]
    loaded = set(re.findall(r"[\w.+-]+\.so\b", "\n".join(_text(path, tree) for path in texts)))
    drivers = [f"*/apr-util-1/{names}" for names, user in _APACHE_DRIVERS.items() if user not in loaded]
    for path in tree.glob("usr/lib/apache2/modules/*.so"):
        if path.name not in loaded:
            path.unlink()
    if tree.joinpath("usr/lib/apache2").is_dir():
        remove(tree, drivers)


def _text(path: Path, tree: Path) -> str:
    """A file's text, a link followed inside the tree."""
    target = follow(tree, str(path.relative_to(tree)))
    return target.read_text(errors="replace") if target is not None and target.is_file() else ""


async def _icu_data(tree: Path, scratch: Path) -> None:
    for library in _files_matching(tree, "usr/lib/*-linux-gnu/libicudata.so.*.*"):
        _refuse_when_all_is_wanted(tree)
        await _cut_icu_data(library, scratch)


def _files_matching(tree: Path, pattern: str) -> list[Path]:
    return [path for path in sorted(tree.glob(pattern)) if not path.is_symlink()]


async def _cut_icu_data(library: Path, scratch: Path) -> None:
    major = library.name.split(".")[2]  # libicudata.so.72.1
    (scratch / "icudata.dat").write_bytes(_cut(library))
    source = _ICU_SOURCE.format(symbol=f"icudt{major}_dat", data=scratch / "icudata.dat")
    (scratch / "icudata.S").write_text(source)
    # no build id: it would be one of path names
    await run(
        "gcc", "-shared", "-nostdlib", "-s",
        f"-Wl,-soname,libicudata.so.{major},--build-id=none,-z,noexecstack",
        scratch / "icudata.S", "-o", library,
    )  # fmt: skip


def _cut(library: Path) -> bytes:
    return icu.encode(icu.find(library.read_bytes()).only(icu.wanted_by_libxml2))


_ICU_SOURCE = """\
        .section .rodata
        .balign 16
        .globl {symbol}
        .type {symbol}, @object
{symbol}: .incbin "{data}"
        .size {symbol}, .-{symbol}
        .section .note.GNU-stack,"",@progbits
"""
"""As ICU's own `pkgdata` writes it: the whole library is this one object."""


def _refuse_when_all_is_wanted(tree: Path) -> None:
    """Break off when something formats dates or sorts by ICU: that takes the rest of its data."""
    for path, names in _mentions(tree).items():
        if not path.name.startswith("libicu") and any(name.startswith(b"libicui18n.") for name in names):
            raise PxebootError(
                f"strip: icu-data would break /{path.relative_to(tree)}",
                'add keep = ["icu-data"] to the recipe',
            )


async def _unused_libraries(tree: Path, scratch: Path) -> None:
    """Mark what can be reached by name from everything that is no such library, and sweep the rest."""
    mentions = _mentions(tree)
    libraries = {path.name.encode(): path for path in _library_files(tree)}
    waiting = [
        name for path, names in mentions.items() if path.name.encode() not in libraries for name in names
    ]
    waiting += [name for name in libraries if any(fnmatch(name.decode(), p) for p in _NAMED_AT_RUN_TIME)]
    wanted: set[bytes] = set()
    while waiting:
        name = waiting.pop()
        if name in libraries and name not in wanted:
            wanted.add(name)
            path = libraries[name]
            waiting += [path.readlink().name.encode()] if path.is_symlink() else mentions.get(path, ())
    for name, path in libraries.items():
        if name not in wanted:
            path.unlink()
    if (tree / _LINKER_CACHE).exists():
        await run("ldconfig", "-X", "-r", tree)


def _library_files(tree: Path) -> Iterator[Path]:
    """Shared libraries in the folders where the linker looks, and the links that name them."""
    for folder in _LIBRARY_FOLDERS:
        for path in tree.glob(f"{folder}/lib*.so*"):
            if path.is_symlink() or path.is_file():
                yield path


def _mentions(tree: Path) -> Mapping[Path, set[bytes]]:
    """The names of libraries that stand in each program, library, script and configuration file."""
    return {path: set(_LIBRARY.findall(path.read_bytes())) for path in _files(tree) if _may_load(path, tree)}


def _may_load(path: Path, tree: Path) -> bool:
    """Lists of files and caches name libraries too, and load none."""
    if path.is_relative_to(tree / "etc"):
        return path != tree / _LINKER_CACHE
    return _beginning(path).startswith((b"\x7fELF", b"#!"))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in walk(folder) if path.is_file() and not path.is_symlink())


_ACTIONS: Mapping[Action, Callable[[Path, Path], Awaitable[None]]] = {
    "perl-scripts": _perl_scripts,
    "apache-modules": _apache_modules,
    "icu-data": _icu_data,
    "unused-libraries": _unused_libraries,
}
