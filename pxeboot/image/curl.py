"""A curl that runs in the initrd: static, HTTP and HTTPS only, built once from Debian's source package.

Its TLS is mbed TLS, of which Debian has a static library: a quarter of the size of OpenSSL's.
"""

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
        "sspi", "versioned-symbols",
    )),
    *(f"--without-{name}" for name in (
        "ca-bundle", "ca-path", "zlib", "brotli", "zstd", "libpsl", "libidn2", "nghttp2", "librtmp",
        "libssh2",
    )),
)  # fmt: skip
_TLS = "libmbedtls-dev"


async def fetch(cache: Path, scratch: Path, report: Callable[[float | None], None]) -> Path:
    """The static curl, from `cache` when it was built before; building it takes a minute.

    `report` gets the share that is done. Raises PxebootError.
    """
    built = sorted((cache / "curl").glob("*+tls/curl"), key=lambda path: path.stat().st_mtime)
    if built:
        return built[-1]
    (scratch / "curl").mkdir()
    return await _build(cache, scratch / "curl", report)


async def _build(cache: Path, scratch: Path, report: Callable[[float | None], None]) -> Path:
    apt = Apt(cache / "apt/sources", host_sources(), "deb-src")
    await apt.update()
    report(0.1)
    source = await apt.download_source("curl", scratch)
    tls = await _fetch_tls(cache, scratch)
    report(0.2)
    flags = f"-I{tls}/include -ffunction-sections -fdata-sections"
    await run(
        "./configure", "--disable-shared", "--enable-static", f"--with-mbedtls={tls}", *_LEFT_OUT,
        directory=source, environment={"CFLAGS": f"-Os {flags}", "LDFLAGS": f"-L{tls}/lib -static"},
    )  # fmt: skip
    report(0.6)
    await run(
        "make",
        f"-j{os.cpu_count() or 1}",
        f"LDFLAGS=-L{tls}/lib -all-static -Wl,--gc-sections -s",
        directory=source,
    )
    shutil.copyfile(source / "src/curl", scratch / "curl")
    return _keep(scratch / "curl", cache / "curl" / f"{_version(scratch)}+tls")


async def _fetch_tls(cache: Path, scratch: Path) -> Path:
    """The static library and its headers, below a folder of ours: the host need not have them."""
    apt = Apt(cache / "apt/libraries", host_sources(), "deb")
    await apt.update()
    archive = await apt.download(_TLS, (await apt.describe(_TLS))["Version"], scratch)
    await run("dpkg-deb", "-x", archive, scratch / "tls")
    prefix = scratch / "tls/usr"
    (prefix / "lib").mkdir(exist_ok=True)
    for library in prefix.glob("lib/*-linux-*/*.a"):
        library.rename(prefix / "lib" / library.name)
    return prefix


def _version(folder: Path) -> str:
    """Debian's version of the source package that was fetched into `folder`."""
    return next(folder.glob("*.dsc")).stem.partition("_")[2]


def _keep(program: Path, folder: Path) -> Path:
    program.chmod(0o755)
    folder.mkdir(parents=True, exist_ok=True)
    os.sync()  # or a crash could leave a cached program without contents
    return program.replace(folder / "curl")
