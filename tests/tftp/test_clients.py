import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import tftpy

from tests.tftp.site import FILES, HERE, LIMIT_S, SIZES, Site


async def run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    assert process.returncode == 0, output
    return output.decode()


async def fetch_with_curl(port: int, name: str, local: str) -> None:
    await run("curl", "-sS", "--tftp-blksize", "1428", "-o", local, f"tftp://{HERE}:{port}/{name}")


async def fetch_with_curl_512(port: int, name: str, local: str) -> None:
    await run("curl", "-sS", "--tftp-no-options", "-o", local, f"tftp://{HERE}:{port}/{name}")


async def fetch_with_tftp(port: int, name: str, local: str) -> None:
    await run("tftp", "-m", "binary", HERE, str(port), "-c", "get", name, local)


async def fetch_with_busybox(port: int, name: str, local: str) -> None:
    await run("busybox", "tftp", "-g", "-b", "1428", "-r", name, "-l", local, HERE, str(port))


async def fetch_with_atftp(port: int, name: str, local: str) -> None:
    options = ("blksize 1428", "windowsize 16", "tsize 0")
    flags = [flag for option in options for flag in ("--option", option)]
    await run("atftp", *flags, "--get", "-r", name, "-l", local, HERE, str(port))


async def fetch_with_tftpy(port: int, name: str, local: str) -> None:
    client = tftpy.TftpClient(HERE, port, {"blksize": 1428, "tsize": 0})
    await asyncio.wait_for(asyncio.to_thread(client.download, name, local), LIMIT_S)


FETCHES = [
    fetch_with_curl,
    fetch_with_curl_512,
    fetch_with_tftp,
    fetch_with_busybox,
    fetch_with_atftp,
    fetch_with_tftpy,
]


@pytest.mark.parametrize("fetch", FETCHES)
async def test_clients_of_others_read_every_size(
    site: Site, fetch: Callable[[int, str, str], Awaitable[None]], tmp_path: Path
) -> None:
    program = fetch.__name__.split("_")[2]
    if program != "tftpy" and shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    names = [name for name in FILES if name.startswith("size/")]
    for name in names:
        local = tmp_path / name.replace("/", "-")
        await fetch(site.server.port, name, str(local))
        received = local.read_bytes() if local.exists() else b""  # atftp makes no file of 0 bytes
        assert received == FILES[name], name
    assert await site.results(len(names)) == ["done"] * len(names)
    assert [record.bytes for record in site.records] == list(SIZES)
