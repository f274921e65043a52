import os
from pathlib import Path

import pytest

from pxeboot.image.tree import follow, remove, unpacked_bytes

from .trees import names, write


def test_dropping_takes_files_and_whole_folders(tmp_path: Path) -> None:
    write(
        tmp_path, "usr/share/doc/a/b", "usr/share/doc-base/c", "usr/bin/apt", "usr/bin/apt-get", "usr/bin/sh"
    )
    remove(tmp_path, ["/usr/share/doc", "/usr/bin/apt*"])
    assert names(tmp_path) == {"usr/share/doc-base/c", "usr/bin/sh"}
    assert not (tmp_path / "usr/share/doc").exists()


def test_folders_can_be_kept(tmp_path: Path) -> None:
    write(tmp_path, "var/log/apache2/access.log", "var/log/dpkg.log")
    remove(tmp_path, ["/var/log/*"], keep_directories=True)
    assert names(tmp_path) == set()
    assert (tmp_path / "var/log/apache2").is_dir()


def test_dropping_never_follows_a_link_out_of_the_tree(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    write(outside, "precious")
    write(tree, "etc/motd")
    (tree / "run").symlink_to(outside)
    remove(tree, ["/run/*", "*precious"])
    assert names(tree) == {"etc/motd", "run"}
    remove(tree, ["/run"])
    assert names(tree) == {"etc/motd"}
    assert names(outside) == {"precious"}


def test_a_file_with_two_names_is_counted_once_and_links_not_at_all(tmp_path: Path) -> None:
    write(tmp_path, "a", "b/c")
    os.link(tmp_path / "a", tmp_path / "b/a")
    (tmp_path / "link").symlink_to("a")
    assert unpacked_bytes(tmp_path) == 2


def test_what_is_to_be_kept_stays(tmp_path: Path) -> None:
    write(tmp_path, "usr/lib/locale/C.utf8/LC_CTYPE", "usr/lib/locale/de/LC_CTYPE", "usr/lib/locale/archive")
    remove(tmp_path, ["/usr/lib/locale/*"], ["/usr/lib/locale/C.*"])
    assert names(tmp_path) == {"usr/lib/locale/C.utf8/LC_CTYPE"}


def test_no_pattern_takes_nothing(tmp_path: Path) -> None:
    write(tmp_path, "a")
    remove(tmp_path, [])
    assert names(tmp_path) == {"a"}


@pytest.mark.parametrize(
    ("name", "leads_to"),
    [
        ("etc/plain", "etc/plain"), ("etc/absolute", "etc/plain"), ("etc/up", "etc/plain"),
        ("etc/far", "secret"), ("lib/x/y", "usr/lib/x/y"), ("../../etc/./plain", "etc/plain"),
        ("etc/loop", None), ("new/../etc", "etc"), ("", "."),
    ],
)  # fmt: skip
def test_names_are_followed_as_in_a_chroot(name: str, leads_to: str | None, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    write(tree, "etc/plain")
    write(tmp_path, "secret")
    links = {"absolute": "/etc/plain", "up": "../etc/plain", "far": "../../../secret", "loop": "loop"}
    for link, target in links.items():
        (tree / "etc" / link).symlink_to(target)
    (tree / "lib").symlink_to("usr/lib")
    assert follow(tree, name) == (tree / leads_to if leads_to else None)
