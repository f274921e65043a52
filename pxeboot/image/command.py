"""Running the programs that images are made with, so that none of them outlives us or leaves a mount."""

import asyncio
import codecs
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pxeboot.errors import PxebootError

PACKAGES = {
    "mmdebstrap": "mmdebstrap",
    "mksquashfs": "squashfs-tools",
    "zstd": "zstd",
    "depmod": "kmod",
    "busybox": "busybox-static",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "dpkg-source": "dpkg-dev",
    "gcc": "gcc",
    "ldconfig": "libc-bin",
    "make": "make",
    "setpriv": "util-linux",
}
"""Every program that a build starts, and the Debian package it comes in."""

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_CONFINED = (
    "setpriv",
    "--pdeathsig",
    "KILL",
    "unshare",
    "--mount",
    "--mount-proc",
    "--pid",
    "--fork",
    "--kill-child",
)
"""A mount and a process namespace of its own: when the first process ends, by whatever hand, all the others
and every mount are gone with it. The first one ends with us, be it by `kill -9`."""

_LINE_END = re.compile(r"[\r\n]+")
_SHOWN_LINES = 12


class CommandFailed(PxebootError):
    """A program ended with an error; `lines` is all it said."""

    def __init__(self, program: str, status: int, lines: list[str]) -> None:
        shown = "\n  ".join(lines[-_SHOWN_LINES:])
        super().__init__(
            f"{program} failed with status {status}:\n  {shown}", f"see what {program} says above"
        )
        self.lines = lines


def check_ready(packages: Mapping[str, str] = PACKAGES) -> None:
    """See that we are root and every program is there: `packages` by program. Raises PxebootError."""
    if os.geteuid() != 0:
        raise PxebootError("building an image needs root", "run it again as root")
    missing = sorted({packages[name] for name in packages if shutil.which(name, path=SEARCH_PATH) is None})
    if missing:
        raise PxebootError(
            f"these Debian packages are missing: {' '.join(missing)}", f"apt-get install {' '.join(missing)}"
        )


async def run(
    *arguments: str | Path,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> list[str]:
    """Run a program to its end and return the lines of its two outputs, mixed as they came.

    `on_line` sees each line when it comes; a carriage return ends a line too, as progress bars do it. When
    the task is cancelled, the program and all it started are dead before this returns. Needs root.
    Raises CommandFailed.
    """
    process = await asyncio.create_subprocess_exec(
        *_CONFINED,
        *map(str, arguments),
        cwd=directory,
        env=_environment(environment or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for us to hear; we end the program in our own way
    )
    assert process.stdout is not None
    lines: list[str] = []
    try:
        await _read_lines(process.stdout, lines, on_line)
        status = await process.wait()
    except BaseException:
        await _end(process)
        raise
    if status != 0:
        raise CommandFailed(Path(arguments[0]).name, status, lines)
    return lines


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    assert process.stdout is not None
    while await process.stdout.read(65536):
        pass  # its end is the end of the last process that could still write into our folder
    await process.wait()


async def _read_lines(
    stream: asyncio.StreamReader, lines: list[str], on_line: Callable[[str], None] | None
) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    rest = ""
    while chunk := await stream.read(65536):
        *whole, rest = _LINE_END.split(rest + decoder.decode(chunk))
        _note(whole, lines, on_line)
    _note([rest], lines, on_line)


def _note(found: Iterable[str], lines: list[str], on_line: Callable[[str], None] | None) -> None:
    for line in filter(None, found):
        lines.append(line)
        if on_line is not None:
            on_line(line)


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Ours, with a known path and language. A time from outside would change what is built."""
    inherited = {key: value for key, value in os.environ.items() if key != "SOURCE_DATE_EPOCH"}
    return {
        **inherited,
        "PATH": SEARCH_PATH,
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
        **extra,
    }
