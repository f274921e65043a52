import os
import shlex
import subprocess
from pathlib import Path

import pytest

from pxeboot.errors import PxebootError
from pxeboot.image import rootfs
from pxeboot.image.command import CommandFailed
from pxeboot.image.recipe import Recipe, parse
from pxeboot.image.rootfs import EPOCH

from .trees import names, write

RECIPE = parse(
    """
    name = "site"
    packages = ["apache2"]
    commands = ["echo \\"it's $HOME\\""]
    files = { "/etc/a b" = { source = "motd", mode = 0o600 } }
    """,
    "recipe.toml",
)


def test_mmdebstrap_is_told_packages_files_and_commands_in_this_order() -> None:
    arguments = rootfs.arguments(RECIPE, {"/etc/a b": Path("/recipe/mo td")}, Path("/new/root"))
    assert "--include=usr-is-merged,apache2" in arguments
    hooks = [argument for argument in arguments if argument.startswith("--customize-hook=")]
    assert "</recipe/mo td" in " ".join(shlex.split(hooks[0]))
    assert shlex.split(hooks[1].partition("=")[2]) == ["chroot", "$1", "sh", "-euc", RECIPE.commands[0]]
    assert arguments[-2:] == ["bookworm", "/new/root"]


def test_a_file_is_added_with_its_mode_and_its_folder(tmp_path: Path) -> None:
    (tmp_path / "motd").write_text("hello")
    arguments = rootfs.arguments(RECIPE, {"/etc/a b": tmp_path / "motd"}, Path("/new/root"))
    hook = next(a for a in arguments if a.startswith("--customize-hook=")).partition("=")[2]
    inside = hook.replace('chroot "$1"', f"cd {tmp_path} &&", 1).replace("'/etc/a b'", "'etc/a b'")
    subprocess.run(["sh", "-euc", inside, "sh", "root"], check=True)
    added = tmp_path / "etc/a b"
    assert (added.read_text(), added.stat().st_mode & 0o7777) == ("hello", 0o600)


@pytest.mark.parametrize(
    "line",
    [
        "E: Unable to locate package apache3",
        "E: Package 'apache3' has no installation candidate",
        "E: Couldn't find any package by regex 'apache3'",
    ],
)
async def test_a_wrong_package_is_told_by_its_name(
    line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def run(*_: object, **__: object) -> None:
        raise CommandFailed("mmdebstrap", 100, ["I: running apt-get update...", line, "E: setup failed"])

    monkeypatch.setattr(rootfs, "run", run)
    with pytest.raises(PxebootError, match="recipe site: packages: bookworm has no package 'apache3'"):
        await rootfs.make(RECIPE, {"/etc/a b": tmp_path}, tmp_path, tmp_path, lambda _: None)


def test_finishing_takes_out_what_the_building_machine_left(tmp_path: Path) -> None:
    write(tmp_path, "etc/hostname", "etc/resolv.conf", "etc/machine-id", "etc/motd", "tmp/x", "run/y/z")
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


def test_a_recipe_without_packages_still_spares_itself_perl() -> None:
    assert "--include=usr-is-merged" in rootfs.arguments(Recipe(name="tiny"), {}, Path("/x"))
