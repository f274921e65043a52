import asyncio
import hashlib
import random
from pathlib import Path

import pytest

from .server import BootServer
from .shell import call, call_beside

FILES = ("report.sh", "image.sh")
MB = 1048576
IMAGE = random.Random(7).randbytes(3 * MB + 12345)
DIGEST = hashlib.sha256(IMAGE).hexdigest()
DOWNLOAD = "PROGRESS_S=0.1; root=$2; size=$3; download $1"
DOWNLOAD_AND_VERIFY = DOWNLOAD + " && verify $1 >/dev/null"


async def load(
    server: BootServer, run: Path, script: str = DOWNLOAD_AND_VERIFY, size: int = len(IMAGE)
) -> tuple[int, str]:
    """Load the image of `server` into `run`/root: status, and the lines on the console."""
    (run / "url").write_text(server.url + "\n")
    return await call_beside(run, FILES, script, str(run / "root"), DIGEST, str(size))


@pytest.mark.parametrize(
    ("size", "have", "available", "sentence"),
    [
        (66 * MB, 0, 400 * MB, ""),
        (66 * MB, 0, 194 * MB, ""),
        (66 * MB, 0, 193 * MB, "image needs 66 MB and 128 MB for the overlay, 193 MB available"),
        (66 * MB + 1, 0, 194 * MB, "image needs 67 MB and 128 MB for the overlay, 194 MB available"),
        (66 * MB, 60 * MB, 134 * MB, ""),
    ],
)
def test_room_is_judged_before_the_download(
    tmp_path: Path, size: int, have: int, available: int, sentence: str
) -> None:
    result = call(tmp_path, FILES, 'memory_problem "$@"', str(size), str(have), str(available))
    assert (result.returncode, result.stdout.decode().strip()) == (0 if sentence else 1, sentence)


def test_free_memory_is_what_the_kernel_calls_available(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text(
        "MemTotal: 900 kB\nMemFree: 5 kB\nMemAvailable:   70 kB\nBuffers: 1 kB\n"
    )
    result = call(tmp_path, FILES, "memory_available", MEMINFO=str(tmp_path / "meminfo"))
    assert result.stdout == b"71680\n"


@pytest.mark.parametrize(
    ("curl", "http", "retry", "decision"),
    [
        (7, "000", "", "again"),
        (28, "200", "", "again"),
        (18, "206", "", "again"),
        (22, "500", "", "again"),
        (22, "503", "", "again"),
        (22, "503", "12", "wait"),
        (33, "200", "", "anew"),
        (22, "416", "", "anew"),
        (0, "416", "", "anew"),
        (22, "403", "", "the server refuses this boot's token (HTTP 403)"),
        (22, "404", "", "the server has no image for this boot (HTTP 404)"),
        (22, "410", "", "the server refuses the image (HTTP 410)"),
        (23, "200", "", "no room left for the image"),
        (0, "200", "", "the server's image is not the size the boot script gave"),
    ],
)
def test_what_follows_an_attempt_is_a_table(
    tmp_path: Path, curl: int, http: str, retry: str, decision: str
) -> None:
    done = call(tmp_path, FILES, 'after_attempt "$@"', str(curl), http, retry)
    assert done.stdout.decode() == decision + "\n"


async def test_an_image_is_loaded_and_reported(tmp_path: Path) -> None:
    async with BootServer(IMAGE).serving() as server:
        status, console = await load(server, tmp_path, DOWNLOAD_AND_VERIFY + "; wait")
    assert (status, (tmp_path / "root").read_bytes() == IMAGE) == (0, True), console
    assert {"stage": "image", "done": len(IMAGE), "total": len(IMAGE)} in server.events
    assert server.ranges == [None]


async def test_a_broken_connection_is_taken_up_where_it_broke(tmp_path: Path) -> None:
    async with BootServer(IMAGE, cuts=[1_000_000, 500_000, 0]).serving() as server:
        status, console = await load(server, tmp_path)
    assert (status, (tmp_path / "root").read_bytes() == IMAGE) == (0, True), console
    assert server.ranges == [None, "bytes=1000000-", "bytes=1500000-", "bytes=1500000-"]
    assert "broke off at 0 MB: (" in console


async def test_a_server_started_again_is_asked_for_the_rest(tmp_path: Path) -> None:
    server = BootServer(IMAGE, cuts=[2_000_000])
    async with server.serving():
        loading = asyncio.create_task(load(server, tmp_path))
        await server.until(lambda: not server.cuts)
    await asyncio.sleep(0.5)  # the port is closed for a while
    async with server.serving():
        status, console = await loading
    assert (status, (tmp_path / "root").read_bytes() == IMAGE) == (0, True), console
    assert server.ranges == [None, "bytes=2000000-"]
    assert "(7) Failed to connect" in console


async def test_a_server_in_trouble_is_asked_again(tmp_path: Path) -> None:
    async with BootServer(IMAGE, refusals=[503]).serving() as server:
        status, console = await load(server, tmp_path, "report() { :; };" + DOWNLOAD_AND_VERIFY)
    assert status == 0, console
    assert "broke off at 0 MB: HTTP 503" in console


async def test_a_node_waits_for_its_turn_as_the_server_says(tmp_path: Path) -> None:
    script = 'sleep() { echo "slept $1"; command sleep 0.05; };' + DOWNLOAD_AND_VERIFY
    async with BootServer(IMAGE, places=[37, 37, 2], cuts=[1000]).serving() as server:
        status, console = await load(server, tmp_path, script)
    assert (status, (tmp_path / "root").read_bytes() == IMAGE) == (0, True), console
    assert [line for line in console.splitlines() if "queued" in line or "slept 37" in line] == [
        "pxeboot: image: queued, place 37",
        "slept 37",
        "slept 37",
        "pxeboot: image: queued, place 2",
    ]
    assert server.ranges == [None, None, None, None, "bytes=1000-"]


async def test_a_server_that_ignores_ranges_sends_it_all_again(tmp_path: Path) -> None:
    async with BootServer(IMAGE, cuts=[1_000_000], honours_range=False).serving() as server:
        status, console = await load(server, tmp_path)
    assert (status, (tmp_path / "root").read_bytes() == IMAGE) == (0, True), console


async def test_too_many_bytes_from_earlier_are_thrown_away(tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(IMAGE + b"more")
    async with BootServer(IMAGE).serving() as server:
        status, console = await load(server, tmp_path)
    assert (status, server.ranges) == (0, [f"bytes={len(IMAGE) + 4}-", None]), console


async def test_a_complete_file_is_not_asked_for_again(tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(IMAGE)
    async with BootServer(IMAGE).serving() as server:
        assert (await load(server, tmp_path))[0] == 0
    assert server.ranges == []


async def test_a_refused_token_is_a_failure_that_keeps_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(IMAGE[:1000])
    async with BootServer(IMAGE, refusals=[403]).serving() as server:
        status, console = await load(server, tmp_path, "report() { :; };" + DOWNLOAD)
    assert status == 1
    assert console.endswith("download: the server refuses this boot's token (HTTP 403)\n")
    assert (tmp_path / "root").read_bytes() == IMAGE[:1000]


async def test_an_image_of_another_size_is_a_failure(tmp_path: Path) -> None:
    async with BootServer(IMAGE).serving() as server:
        status, console = await load(server, tmp_path, DOWNLOAD, size=len(IMAGE) + 1)
    assert (status, (tmp_path / "root").exists()) == (1, False)
    assert "download: the server's image is not the size the boot script gave" in console


async def test_wrong_bytes_are_refused_with_both_digests_and_removed(tmp_path: Path) -> None:
    flipped = bytearray(IMAGE)
    flipped[2_000_000] ^= 1
    wrong = hashlib.sha256(flipped).hexdigest()
    async with BootServer(bytes(flipped)).serving() as server:
        script = DOWNLOAD + " && verify $1"
        status, console = await load(server, tmp_path, script)
    assert (status, (tmp_path / "root").exists()) == (1, False)
    assert console.endswith(f"digest: expected {DIGEST[:12]}, got {wrong[:12]}\n")
