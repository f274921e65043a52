from pathlib import Path

from .shell import call

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
