"""A curl that runs in the initrd: static, HTTP only, built once from Debian's source package."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from pxeboot.image.apt import Apt, host_sources
from pxeboot.image.command import run

_LEFT_OUT = (
    *(f"--disable-{name}" for name in (
        "ftp", "file", "ldap", "ldaps", "rtsp", "dict", "telnet", "tftp", "pop3", "imap", "smb", "smtp",
        "gopher", "mqtt", "manual", "libcurl-option", "threaded-resolver", "ipv6", "ntlm", "tls-srp",
        "unix-sockets", "cookies", "doh", "mime", "netrc", "alt-svc", "hsts", "crypto-auth",
    )),
    *(f"--without-{name}" for name in (
        "ssl", "zlib", "brotli", "zstd", "libpsl", "libidn2", "nghttp2", "librtmp", "libssh2",
    )),
)  # fmt: skip


async def fetch(cache: Path, scratch: Path, report: Callable[[float | None], None]) -> Path:
    """The static curl, from `cache` when it was built before; building it takes a minute.

    `report` gets the share that is done. Raises PxebootError.
    """
    built = sorted((cache / "curl").glob("*/curl"), key=lambda path: path.stat().st_mtime)
    if built:
        return built[-1]
    (scratch / "curl").mkdir()
    return await _build(cache, scratch / "curl", report)


async def _build(cache: Path, scratch: Path, report: Callable[[float | None], None]) -> Path:
    apt = Apt(cache / "apt/sources", host_sources(), "deb-src")
    await apt.update()
    report(0.1)
    source = await apt.download_source("curl", scratch)
    report(0.2)
    await run(
        "./configure", "--disable-shared", "--enable-static", *_LEFT_OUT,
        directory=source, environment={"CFLAGS": "-Os -ffunction-sections -fdata-sections"},
    )  # fmt: skip
    report(0.6)
    await run(
        "make", f"-j{os.cpu_count() or 1}", "LDFLAGS=-all-static -Wl,--gc-sections -s", directory=source
    )
    shutil.copyfile(source / "src/curl", scratch / "curl")
    return _keep(scratch / "curl", cache / "curl" / _version(scratch))


def _version(folder: Path) -> str:
    """Debian's version of the source package that was fetched into `folder`."""
    return next(folder.glob("*.dsc")).stem.partition("_")[2]


def _keep(program: Path, folder: Path) -> Path:
    program.chmod(0o755)
    folder.mkdir(parents=True, exist_ok=True)
    os.sync()  # or a crash could leave a cached program without contents
    return program.replace(folder / "curl")
