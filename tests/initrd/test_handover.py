from pathlib import Path

import pytest

from pxeboot.overlay import RootFile, archive

from .server import BootServer
from .shell import call, call_beside

FILES = ("report.sh", "handover.sh")


def identify(root: Path, dns: str) -> None:
    (root / "etc").mkdir()
    (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    (root / "etc" / "resolv.conf").symlink_to("/nonexistent/stub-resolv.conf")
    script = 'name=node-1; address=10.0.0.5/24; dns=$2; write_identity "$1"'
    result = call(root, FILES, script, str(root), dns)
    assert (result.returncode, result.stderr) == (0, b"")


def test_a_node_knows_its_name_and_its_resolvers(tmp_path: Path) -> None:
    identify(tmp_path, "10.0.0.1,10.0.0.2")
    etc = tmp_path / "etc"
    assert (etc / "hostname").read_text() == "node-1\n"
    assert (etc / "hosts").read_text() == "127.0.0.1 localhost\n10.0.0.5 node-1\n"
    assert (etc / "resolv.conf").read_text() == "nameserver 10.0.0.1\nnameserver 10.0.0.2\n"


def test_without_resolvers_the_image_keeps_its_own(tmp_path: Path) -> None:
    identify(tmp_path, "")
    assert (tmp_path / "etc" / "resolv.conf").is_symlink()


def test_an_image_without_etc_is_a_failure(tmp_path: Path) -> None:
    result = call(tmp_path, FILES, 'name=n; address=; dns=; write_identity "$1"', str(tmp_path))
    assert (result.returncode, result.stdout) == (1, b"mount: cannot write to the overlay\n")


LAY = "FILES_PORTS=1024-65535; lay_files $1"


async def lay(server: BootServer, run: Path, root: Path) -> tuple[int, str]:
    (run / "url").write_text(server.url + "\n")
    root.mkdir(exist_ok=True)
    return await call_beside(run, FILES, LAY, str(root))


@pytest.mark.net
async def test_a_nodes_files_are_laid_over_its_root_as_the_root_sees_itself(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nwww-data:x:33:33::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nwww-data:x:33:\nssl-cert:x:101:\n")
    (root / "etc/motd").symlink_to(outside)  # replaced, not followed
    (root / "srv").mkdir(mode=0o700)
    (root / "var").symlink_to("/srv")  # an absolute link leads to the root's own /srv
    files = [
        RootFile("/etc/motd", b"hello"),
        RootFile("/etc/ssl/private/key", b"secret", 0o640, "root:ssl-cert"),
        RootFile("/var/own", b"", 0o600, "www-data"),
        RootFile("/../../outside", b"out"),
    ]
    async with BootServer(overlay=archive(files)).serving() as server:
        status, told = await lay(server, tmp_path, root)
    assert (status, told) == (0, "")
    assert ((root / "etc/motd").read_text(), (root / "etc/motd").is_symlink()) == ("hello", False)
    key, own = (root / "etc/ssl/private/key").stat(), (root / "srv/own").stat()
    assert (key.st_mode & 0o7777, key.st_uid, key.st_gid) == (0o640, 0, 101)
    assert (own.st_mode & 0o7777, own.st_uid, own.st_gid) == (0o600, 33, 33)
    assert (root / "srv").stat().st_mode & 0o7777 == 0o700
    assert not outside.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root", "url"]
    assert sorted(path.name for path in root.iterdir()) == ["etc", "outside", "srv", "var"]


async def test_a_server_that_is_away_is_asked_again_for_the_files(tmp_path: Path) -> None:
    async with BootServer(overlay=archive([]), refusals=[503, 500]).serving() as server:
        (tmp_path / "url").write_text(server.url + "\n")
        status, told = await call_beside(
            tmp_path, FILES, 'FILES_PORTS=1024-65535; fetch_files "$1"', str(tmp_path / "files.tar")
        )
    assert (status, told.count("asking again")) == (0, 2)
    assert (tmp_path / "files.tar").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (403, "config: the server refuses this node its files (HTTP 403)\n"),
        (409, "config: /etc/x: the template wants $y\n"),
    ],
)
async def test_what_waiting_does_not_mend_is_a_failure_with_the_servers_words(
    tmp_path: Path, status: int, sentence: str
) -> None:
    async with BootServer(refusals=[status]).serving() as server:
        assert await lay(server, tmp_path, tmp_path / "root") == (1, sentence)


@pytest.mark.net
async def test_an_archive_that_is_none_is_a_failure(tmp_path: Path) -> None:
    async with BootServer(overlay=b"not a tar" * 100).serving() as server:
        status, told = await lay(server, tmp_path, tmp_path / "root")
    assert (status, told.startswith("config: cannot unpack this node's files: tar: ")) == (1, True)
