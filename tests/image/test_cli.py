import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pxeboot.cli.image import app
from pxeboot.errors import PxebootError
from pxeboot.image.library import Library

from .test_library import add


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    library = Library(tmp_path / "images")
    library.set_tag("web", add(library, "site").digest)
    return tmp_path


def output(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_images_are_listed_for_people_and_for_programs(state_dir: Path) -> None:
    digest = Library(state_dir / "images").resolve("web").digest
    assert digest[:12] in output("list", "--state-dir", str(state_dir))
    (row,) = json.loads(output("list", "--json", "--state-dir", str(state_dir)))
    assert (row["digest"], row["tags"], row["recipe"]) == (digest, ["web"], "site")
    assert row["artefacts"]["root"] == {"sha256": "a" * 64, "size": 4}


def test_one_image_is_shown_by_tag(state_dir: Path) -> None:
    digest = Library(state_dir / "images").resolve("web").digest
    assert digest in output("show", "web", "--state-dir", str(state_dir))
    shown = json.loads(output("show", digest[:8], "--json", "--state-dir", str(state_dir)))
    assert (shown["digest"], shown["packages"]) == (digest, [])


def test_the_strip_rules_are_listed() -> None:
    assert "icu-data" in output("rules")
    assert all(rule["what"] and rule["why"] for rule in json.loads(output("rules", "--json")))


def test_an_unknown_image_is_an_operators_fault(state_dir: Path) -> None:
    with pytest.raises(PxebootError, match="there is no image 'db'"):
        output("show", "db", "--state-dir", str(state_dir))


def test_a_missing_recipe_is_told_before_any_work(state_dir: Path) -> None:
    with pytest.raises(PxebootError, match="no recipe 'nothing'"):
        output("build", "nothing", "--state-dir", str(state_dir))
