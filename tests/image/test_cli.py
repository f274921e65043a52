import asyncio
import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pxeboot.cli.image import app
from pxeboot.errors import PxebootError
from pxeboot.image.library import Library
from pxeboot.inventory.boot import Boot, Stage
from pxeboot.inventory.node import Node
from pxeboot.inventory.store import open_store
from pxeboot.mac import Mac
from tests.parts import put_image

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


def tags(state_dir: Path) -> dict[str, str]:
    return Library(state_dir / "images").tags()


def test_a_tag_is_made_moved_and_rolled_back(state_dir: Path) -> None:
    library, at = Library(state_dir / "images"), ("--state-dir", str(state_dir))
    first, second = library.resolve("web").digest, add(library, "second").digest
    assert second in output("tag", "web", second[:8], *at)
    assert tags(state_dir) == {"web": second}
    assert first in output("rollback", "web", *at)
    assert tags(state_dir) == {"web": first}
    (*_, shown) = json.loads(output("show", "web", "--json", *at))["history"]
    assert (shown["digest"], shown["back"]) == (first, False)


def test_an_image_is_carried_to_another_library_in_one_file(state_dir: Path, tmp_path: Path) -> None:
    digest, file = put_image(Library(state_dir / "images")).digest, str(tmp_path / "file")
    output("export", "web", file, "--state-dir", str(state_dir))
    assert digest in output("import", file, "--tag", "new", "--state-dir", str(tmp_path / "other"))
    assert tags(tmp_path / "other") == {"new": digest}
    assert "good" in output("verify", "--state-dir", str(tmp_path / "other"))


def test_a_damaged_image_is_found_and_the_exit_code_says_so(state_dir: Path) -> None:
    image = put_image(Library(state_dir / "images"))
    image.kernel.write_bytes(b"x")
    with pytest.raises(PxebootError, match="1 of 1 images failed"):
        output("verify", "web", "--state-dir", str(state_dir))


async def boots(state_dir: Path, mac: str, digest: str, stage: Stage) -> None:
    """Put a node's boot into the store, as the server does."""
    store = open_store(state_dir)
    await store.save_node(Node(Mac.parse(mac), f"node-{mac[-2:]}", first_seen=1.0))
    await store.save_boot(
        Boot(id=mac, mac=Mac.parse(mac), stage=stage, started=1.0, reached={}, heard=1.0, image=digest)
    )
    await store.close()


def test_images_that_nobody_needs_are_removed_when_the_server_is_down(state_dir: Path) -> None:
    library, at = Library(state_dir / "images"), ("--state-dir", str(state_dir))
    web = library.resolve("web").digest
    runs, lost, idle = (add(library, name).digest for name in ("runs", "lost", "idle"))
    asyncio.run(boots(state_dir, "52:54:00:00:00:01", runs, Stage.READY))
    asyncio.run(boots(state_dir, "52:54:00:00:00:02", lost, Stage.LOST))  # it may well run, unheard
    assert "would go" in output("gc", "--dry-run", *at)
    assert {image.digest for image in library.list()} == {web, runs, lost, idle}
    assert [gone["digest"] for gone in json.loads(output("gc", "--json", *at))] == [idle]
    assert {image.digest for image in Library(state_dir / "images").list()} == {web, runs, lost}


def test_the_last_images_of_a_tag_stay(state_dir: Path) -> None:
    library, at = Library(state_dir / "images"), ("--state-dir", str(state_dir))
    made = [add(library, f"number {count}").digest for count in range(4)]
    for digest in made:
        library.set_tag("web", digest)
    output("gc", "--keep", "2", *at)
    assert {image.digest for image in Library(state_dir / "images").list()} == set(made[2:])


def test_nothing_is_removed_while_somebody_builds(state_dir: Path) -> None:
    library = Library(state_dir / "images")
    with library.draft(), pytest.raises(PxebootError, match="another process is building"):
        output("gc", "--state-dir", str(state_dir))


def test_an_image_is_signed_with_the_operators_key(state_dir: Path, tmp_path: Path) -> None:
    at = ("--state-dir", str(state_dir))
    with pytest.raises(PxebootError, match="no key to sign with"):
        output("sign", "web", *at)
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / "key"], check=True)
    output("sign", "web", "--key", str(tmp_path / "key"), *at)
    assert len(json.loads(output("show", "web", "--json", *at))["signed_by"]) == 64


def test_two_images_are_compared(state_dir: Path) -> None:
    library = Library(state_dir / "images")
    library.set_tag("new", add(library, "other").digest)
    assert "other" in output("diff", "web", "new", "--state-dir", str(state_dir))
    found = json.loads(output("diff", "web", "new", "--json", "--state-dir", str(state_dir)))
    assert [change["name"] for change in found["facts"]] == ["recipe"]
