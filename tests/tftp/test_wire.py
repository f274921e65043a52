"""The whole server behind a cable: every client there is, files of every size, and packets lost."""

import contextlib
import hashlib
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tftpy
from pyroute2 import IPRoute

from tests.lab.conditions import needs_network
from tests.serving import CLIENT, CONFIG, SERVER, Served, served, wait_for

pytestmark = [pytest.mark.net, needs_network, pytest.mark.timeout(300)]

SECONDS = 200.0
SIZES = (0, 1, 1427, 1428, 1429, 300_000)
LARGE = 100 * 2**20  # past block 65 535 at every block size below 1600
LOADER = 2**20
TRIES = 12
"""Of a client started again where it gave up; with one packet in five lost, four in a thousand million
need more."""
TFTP = '\n[tftp]\nroot = "STATE/tftp"\n'


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    return {f"file{size}": random.Random(size).randbytes(size) for size in (*SIZES, LOADER, LARGE)}


@pytest.fixture(params=[False, True], ids=["two ports", "single port"])
def either(tmp_path: Path, contents: dict[str, bytes], request: pytest.FixtureRequest) -> Iterator[Served]:
    with serving(tmp_path, contents, request.param) as started:
        yield started


@pytest.fixture
def server(tmp_path: Path, contents: dict[str, bytes]) -> Iterator[Served]:
    with serving(tmp_path, contents, False) as started:
        yield started


@contextmanager
def serving(tmp_path: Path, contents: dict[str, bytes], single_port: bool) -> Iterator[Served]:
    (tmp_path / "tftp").mkdir()
    for name, content in contents.items():
        (tmp_path / "tftp" / name).write_bytes(content)
    single = f"single_port = {str(single_port).lower()}\n"
    with served(tmp_path, CONFIG + TFTP + single) as started:
        started.cable.in_client(give_address)
        yield started


def give_address() -> None:
    with IPRoute() as links:
        links.addr("add", index=links.link_lookup(ifname=CLIENT)[0], address="10.77.0.50", prefixlen=24)


class SecondOack(Exception):
    """The client has ended at a second OACK.

    The server sends one when the ACK of the first is lost, which looks to it like a lost OACK. It must: GRUB
    then repeats neither its request nor that ACK. atftp and tftpy give up.
    """


def lose(server: Served, percent: int) -> None:
    """Of the packets that arrive at either end. A window crosses as its packets, not as one."""
    rules = (
        "table inet loss { chain input { type filter hook input priority 0; "
        f"meta l4proto udp numgen random mod 100 < {percent} drop; }}; }}"
    )
    for inside, interface in ((server.cable.in_server, "boot0"), (server.cable.in_client, CLIENT)):
        for command in (
            ["ethtool", "-K", interface, "tx-udp-segmentation", "off"],
            ["nft", rules],
        ):
            inside(lambda command=command: _run(command))  # type: ignore[misc]


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def with_curl(server: Served, name: str, local: Path) -> None:
    command = ("curl", "-sS", "--tftp-blksize", "1428", "-o", str(local), f"tftp://{SERVER}/{name}")
    assert server.cable.run(*command, seconds=SECONDS).returncode == 0


def with_tftp_hpa(server: Served, name: str, local: Path) -> None:
    command = ("tftp", "-m", "binary", SERVER, "-c", "get", name, str(local))
    assert server.cable.run(*command, seconds=SECONDS).returncode == 0


def with_busybox(server: Served, name: str, local: Path) -> None:
    command = ("busybox", "tftp", "-g", "-b", "1428", "-r", name, "-l", str(local), SERVER)
    assert server.cable.run(*command, seconds=SECONDS).returncode == 0


def with_atftp(server: Served, name: str, local: Path) -> None:
    options = ("blksize 1428", "windowsize 16", "timeout 1")  # it waits for 5 s all the same
    flags = [flag for option in options for flag in ("--option", option)]
    command = ("atftp", *flags, "--get", "-r", name, "-l", str(local), SERVER)
    told = server.cable.run(*command, seconds=SECONDS)
    if "unexpected OACK" in told.stderr:
        raise SecondOack
    assert told.returncode == 0, told.stderr


def with_tftpy(server: Served, name: str, local: Path) -> None:
    client = tftpy.TftpClient(SERVER, 69, {"blksize": 1428})
    try:
        server.cable.in_client(lambda: client.download(name, str(local)))
    except tftpy.TftpException as error:
        if "peer: OACK" in str(error):
            raise SecondOack from error
        raise


CLIENTS = [with_curl, with_tftp_hpa, with_busybox, with_atftp, with_tftpy]
Fetch = Callable[[Served, str, Path], None]


def fetched(server: Served, fetch: Fetch, name: str) -> str:
    program = fetch.__name__.removeprefix("with_").partition("_")[0]
    if program != "tftpy" and shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    local = server.state_dir / "got"
    local.unlink(missing_ok=True)
    fetch(server, name, local)
    # atftp makes no file of 0 bytes
    return hashlib.sha256(local.read_bytes() if local.exists() else b"").hexdigest()


def fetched_at_last(server: Served, fetch: Fetch, name: str) -> str:
    """The same where packets are lost, and started anew where only the client cannot go on."""
    for _ in range(TRIES):
        with contextlib.suppress(SecondOack):
            return fetched(server, fetch, name)
    raise SecondOack


@pytest.mark.parametrize("fetch", CLIENTS)
def test_every_client_gets_every_size_byte_for_byte(
    either: Served, contents: dict[str, bytes], fetch: Fetch
) -> None:
    for name in (f"file{size}" for size in (*SIZES, LARGE)):
        assert fetched(either, fetch, name) == hashlib.sha256(contents[name]).hexdigest(), name
    assert either.log.count(": done, ") == len(SIZES) + 1


@pytest.mark.parametrize("fetch", CLIENTS)
def test_with_one_packet_in_a_hundred_lost_every_transfer_is_right(
    server: Served, contents: dict[str, bytes], fetch: Fetch
) -> None:
    lose(server, 1)
    for name in (f"file{size}" for size in SIZES):
        assert fetched_at_last(server, fetch, name) == hashlib.sha256(contents[name]).hexdigest(), name


@pytest.mark.parametrize("fetch", [with_curl, with_atftp])
def test_with_one_packet_in_five_lost_a_loader_still_arrives(
    server: Served, contents: dict[str, bytes], fetch: Fetch
) -> None:
    lose(server, 20)
    name = f"file{LOADER}"
    assert fetched_at_last(server, fetch, name) == hashlib.sha256(contents[name]).hexdigest()


def test_a_write_is_refused_and_nothing_is_written(server: Served) -> None:
    local = server.state_dir / "upload"
    local.write_text("no")
    told = server.cable.run("curl", "-sS", "-T", str(local), f"tftp://{SERVER}/upload")
    assert told.returncode == 69  # CURLE_TFTP_PERM
    assert not (server.state_dir / "tftp" / "upload").exists()
    wait_for(lambda: "upload refused: This server is read-only" in server.log, 5)
