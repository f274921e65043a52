"""The examples are what they say: their files are there, and pxeboot takes them."""

import re
from pathlib import Path

import pytest

from pxeboot.config import load
from pxeboot.image import recipes
from pxeboot.inventory.overlay import GIVEN
from pxeboot.overlay import lay
from pxeboot.web.overlays import read_files

EXAMPLES = Path(__file__).parent.parent / "examples"
FOLDERS = sorted(path for path in EXAMPLES.iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_recipe_and_configuration_are_taken(folder: Path) -> None:
    recipe = recipes.load(str(folder)).recipe
    config = load(folder / "pxeboot.toml")
    assert [group.image for group in config.group] == [recipe.name]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_templates_find_every_word_they_want(folder: Path) -> None:
    for group in load(folder / "pxeboot.toml").group:
        files = lay([read_files(group)], {**group.vars, **dict.fromkeys(GIVEN, "x")})
        assert len(files) == len(group.files)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_the_readme_names_every_file(folder: Path) -> None:
    named = set(re.findall(r"`([\w.-]+)`", (folder / "README.md").read_text()))
    told = {path.name for path in folder.iterdir()} - {"README.md", "name.conf", "which-node.php"}
    assert told <= named
