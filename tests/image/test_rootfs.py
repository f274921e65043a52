import os
from pathlib import Path

from pxeboot.image import rootfs
from pxeboot.image.tree import EPOCH

from .trees import names, write


def test_machine_id_is_written_into_the_tree_whatever_link_stands_there(tmp_path: Path) -> None:
    write(tmp_path, "outside")
    write(tmp_path / "tree", "etc/motd")
    (tmp_path / "tree/etc/machine-id").symlink_to(tmp_path / "outside")
    rootfs.finish(tmp_path / "tree", [], 0)
    assert (tmp_path / "outside").read_text() == "x"
    assert (tmp_path / "tree/etc/machine-id").read_bytes() == b""


def test_finishing_takes_out_what_the_building_machine_left(tmp_path: Path) -> None:
    write(tmp_path, "etc/hostname", "etc/resolv.conf", "etc/machine-id", "etc/motd", "tmp/x", "run/y/z")
    write(tmp_path, "etc/ssh/ssh_host_ed25519_key")
    write(tmp_path, "var/log/apache2/error.log", "var/lib/apt/lists/l", "usr/share/doc/d")
    rootfs.finish(tmp_path, ["/usr/share/doc/*"], 0)
    assert names(tmp_path) == {"etc/machine-id", "etc/motd"}
    assert (tmp_path / "etc/machine-id").read_bytes() == b""
    assert all((tmp_path / kept).is_dir() for kept in ("tmp", "run", "var/log/apache2", "usr/share/doc"))


def test_what_building_made_gets_the_lasting_time_and_the_rest_keeps_its_own(tmp_path: Path) -> None:
    write(tmp_path, "etc/machine-id", "usr/bin/old", "usr/bin/new", "usr/lib/old")
    (tmp_path / "usr/link").symlink_to("nowhere")
    for path in ("usr/bin/old", "usr/lib/old", "usr/lib"):
        os.utime(tmp_path / path, (1000, 1000))
    rootfs.finish(tmp_path, [], 2000)
    times = {str(path.relative_to(tmp_path)): path.lstat().st_mtime for path in tmp_path.rglob("*")}
    assert {path for path, time in times.items() if time == 1000} == {"usr/bin/old", "usr/lib/old", "usr/lib"}
    assert {time for time in times.values() if time != 1000} == {EPOCH}
    assert tmp_path.stat().st_mtime == EPOCH
