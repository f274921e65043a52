from pathlib import Path

import pytest

from pxeboot.errors import PxebootError
from pxeboot.image import recipes


def write_recipe(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_the_web_recipe_comes_with_the_package() -> None:
    loaded = recipes.load("web")
    assert loaded.recipe.name == "web"
    assert loaded.sources["/var/www/html/index.php"].read_text().startswith("<?php")


def test_a_recipe_is_found_as_a_file_and_as_a_folder(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "site", 'name = "site"')
    assert [recipes.load(str(where)).recipe.name for where in (path, path.parent)] == ["site", "site"]


def test_a_folder_here_is_found_by_its_plain_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recipe(tmp_path / "site", 'name = "site"')
    monkeypatch.chdir(tmp_path)
    assert recipes.load("site").recipe.name == "site"


def test_a_folder_here_does_not_hide_a_shipped_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recipe(tmp_path / "web", 'name = "mine"')
    monkeypatch.chdir(tmp_path)
    assert [recipes.load(name).recipe.name for name in ("web", "./web")] == ["web", "mine"]


def test_local_files_are_relative_to_the_recipe(tmp_path: Path) -> None:
    write_recipe(tmp_path, 'name = "site"\nfiles = { "/etc/motd" = "motd" }')
    (tmp_path / "motd").write_text("hello")
    assert recipes.load(str(tmp_path)).sources == {"/etc/motd": tmp_path / "motd"}


def test_a_missing_local_file_is_refused(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, 'name = "site"\nfiles = { "/etc/motd" = "motd" }')
    with pytest.raises(PxebootError, match=f"{path}: files./etc/motd: there is no file {tmp_path}/motd"):
        recipes.load(str(path))


def test_an_unknown_recipe_is_refused_with_those_there_are() -> None:
    with pytest.raises(PxebootError, match="no recipe 'wbe'") as caught:
        recipes.load("wbe")
    assert "web" in caught.value.hint


def test_a_recipe_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(PxebootError, match="cannot be read"):
        recipes.load(str(tmp_path))


def test_what_a_recipe_extends_is_read_with_its_own_files(tmp_path: Path) -> None:
    write_recipe(tmp_path / "base", 'name = "base"\nfiles = { "/etc/motd" = "motd", "/etc/issue" = "issue" }')
    path = write_recipe(
        tmp_path / "site", 'name = "site"\nextends = "../base"\nfiles = { "/etc/motd" = "mine" }'
    )
    for name in ("base/motd", "base/issue", "site/mine"):
        (tmp_path / name).write_text(name)
    loaded = recipes.load(str(path))
    assert loaded.recipe.name == "site"
    assert loaded.sources == {"/etc/motd": tmp_path / "site/mine", "/etc/issue": tmp_path / "base/issue"}


def test_a_shipped_recipe_is_extended_by_its_name(tmp_path: Path) -> None:
    path = write_recipe(
        tmp_path, 'name = "shop"\nextends = "web"\npackages = ["php-intl"]\nkeep = ["icu-data"]'
    )
    loaded = recipes.load(str(path))
    assert {"apache2", "php-intl"} <= set(loaded.recipe.packages)
    assert "icu-data" not in loaded.recipe.strip
    assert loaded.sources["/var/www/html/index.php"].is_file()


def test_recipes_that_extend_one_another_are_refused(tmp_path: Path) -> None:
    write_recipe(tmp_path / "a", 'name = "a"\nextends = "../b"')
    path = write_recipe(tmp_path / "b", 'name = "b"\nextends = "../a"')
    with pytest.raises(PxebootError, match="in a circle"):
        recipes.load(str(path))


def test_keys_are_written_or_are_read_from_files(tmp_path: Path) -> None:
    path = write_recipe(
        tmp_path, 'name = "x"\nusers = { eve = { keys = ["eve.pub", "ssh-ed25519 AAAA b"] } }'
    )
    (tmp_path / "eve.pub").write_text("# mine\nssh-ed25519 BBBB a\n\n")
    assert recipes.load(str(path)).recipe.users["eve"].keys == ("ssh-ed25519 BBBB a", "ssh-ed25519 AAAA b")
    (tmp_path / "eve.pub").unlink()
    with pytest.raises(PxebootError, match=r"users.eve.keys: eve.pub"):
        recipes.load(str(path))


def test_a_base_is_found_beside_the_recipe(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, 'name = "x"\nbase = "root.tar"')
    with pytest.raises(PxebootError, match=r"base: there is no .*root.tar"):
        recipes.load(str(path))
    (tmp_path / "root.tar").write_text("x")
    assert recipes.load(str(path)).base == tmp_path / "root.tar"
