from pathlib import Path

import pytest

from pxeboot.errors import PxebootError
from pxeboot.image.library import Image, Library
from pxeboot.image.manifest import Artefact, Artefacts, Manifest


def manifest(recipe: str = "web") -> Manifest:
    artefact = Artefact(sha256="a" * 64, size=4)
    return Manifest(
        recipe=recipe,
        suite="bookworm",
        kernel_version="6.1",
        artefacts=Artefacts(root=artefact, kernel=artefact, initrd=artefact),
        unpacked_bytes=9,
        packages=(),
    )


def add(library: Library, recipe: str = "web") -> Image:
    with library.draft() as draft:
        for name in ("root.squashfs", "kernel", "initrd"):
            (draft.entry / name).write_text(recipe)
        return library.put(draft, manifest(recipe))


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "images")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_an_entry_is_named_by_its_digest_and_holds_four_files(library: Library, tmp_path: Path) -> None:
    image = add(library)
    assert image.digest == manifest().digest
    assert names(tmp_path / "images") == [image.digest]
    assert names(image.path) == ["initrd", "kernel", "manifest.json", "root.squashfs"]
    assert [path.read_text() for path in (image.root, image.kernel, image.initrd)] == ["web"] * 3
    assert (image.path / "manifest.json").read_bytes() == manifest().encode()


def test_another_process_sees_the_entry(library: Library, tmp_path: Path) -> None:
    image = add(library)
    assert Library(tmp_path / "images").get(image.digest) == image


def test_an_entry_that_is_there_stays_as_it_is(library: Library, tmp_path: Path) -> None:
    before = add(library).root.stat().st_ino
    assert add(library).root.stat().st_ino == before
    assert names(tmp_path / "images") == [manifest().digest]


def test_a_build_that_fails_leaves_nothing(library: Library, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), library.draft() as draft:
        (draft.scratch / "half").write_text("x")
        raise KeyboardInterrupt
    assert names(tmp_path / "images") == []


def test_what_a_killed_build_left_is_swept_by_the_next(library: Library, tmp_path: Path) -> None:
    left = tmp_path / "images/.draft-abc/scratch"
    left.mkdir(parents=True)
    with library.draft():
        assert not left.parent.exists()


def test_a_second_builder_is_turned_away_and_sweeps_nothing(library: Library, tmp_path: Path) -> None:
    with library.draft() as draft:
        with pytest.raises(PxebootError, match="another process is building"), library.draft():
            pass
        assert draft.scratch.is_dir()


def test_a_missing_entry_is_told(library: Library) -> None:
    with pytest.raises(PxebootError, match=f"image {'0' * 64} is not in"):
        library.get("0" * 64)


def test_an_entry_whose_manifest_was_changed_is_refused(library: Library) -> None:
    image = add(library)
    (image.path / "manifest.json").write_bytes(manifest("other").encode())
    with pytest.raises(PxebootError, match="does not have the digest"):
        Library(image.path.parent).get(image.digest)


def test_a_tag_points_to_the_last_digest_and_remembers_the_others(library: Library) -> None:
    one, two = add(library, "one"), add(library, "two")
    assert library.tag("web") is None
    for image in (one, two, two):
        library.set_tag("web", image.digest)
    assert library.tag("web") == two.digest
    assert [step.digest for step in library.history("web")] == [two.digest, one.digest]
    assert library.history("web")[0].since >= library.history("web")[1].since
    assert library.tags() == {"web": two.digest}


def test_a_running_server_sees_a_tag_move(library: Library, tmp_path: Path) -> None:
    server = Library(tmp_path / "images")
    library.set_tag("web", add(library, "one").digest)
    assert server.resolve("web").manifest.recipe == "one"
    library.set_tag("web", add(library, "two").digest)
    assert server.resolve("web").manifest.recipe == "two"


def test_a_tag_cannot_point_to_nothing(library: Library) -> None:
    with pytest.raises(PxebootError, match="is not in"):
        library.set_tag("web", "0" * 64)
    assert library.tag("web") is None


@pytest.mark.parametrize("name", ["../web", "Web", "", "a/b", ".web"])
def test_a_tag_that_is_no_plain_name_is_refused(library: Library, name: str) -> None:
    image = add(library)
    with pytest.raises(PxebootError, match=r"tag: .* is not a name"):
        library.set_tag(name, image.digest)
    assert library.tag(name) is None


def test_a_damaged_tag_is_told(library: Library, tmp_path: Path) -> None:
    library.set_tag("web", add(library).digest)
    (tmp_path / "images/tags/web.json").write_text('{"history": []}')
    with pytest.raises(PxebootError, match=r"web.json is damaged"):
        library.tag("web")


def test_an_image_is_found_by_tag_digest_and_prefix(library: Library) -> None:
    image = add(library)
    library.set_tag("web", image.digest)
    assert [library.resolve(name) for name in ("web", image.digest, image.digest[:8])] == [image] * 3


def test_a_prefix_of_two_digests_is_refused(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    image = add(library)
    monkeypatch.setattr(library, "list", lambda: [image, image])
    with pytest.raises(PxebootError, match="2 images begin with"):
        library.resolve(image.digest[:8])


@pytest.mark.parametrize("name", ["db", "0123456789", "", "../web"])
def test_an_unknown_image_is_refused_with_the_tags_there_are(library: Library, name: str) -> None:
    library.set_tag("web", add(library).digest)
    with pytest.raises(PxebootError, match="there is no image") as caught:
        library.resolve(name)
    assert "web" in caught.value.hint


def test_an_empty_state_directory_is_an_empty_library(library: Library) -> None:
    assert (library.list(), library.tags()) == ([], {})


def test_images_are_listed_newest_first(library: Library) -> None:
    one, two = add(library, "one"), add(library, "two")
    assert library.list() == [two, one]


def test_a_rollback_points_to_the_image_before_and_another_one_further_back(library: Library) -> None:
    images = [add(library, name) for name in ("one", "two", "three")]
    for image in images:
        library.set_tag("web", image.digest)
    assert library.rollback("web") == images[1]
    assert library.rollback("web") == images[0]
    assert library.tag("web") == images[0].digest
    assert [step.back for step in library.history("web")] == [True, True, False, False, False]
    with pytest.raises(PxebootError, match="no earlier image"):
        library.rollback("web")


def test_a_removed_entry_is_gone_and_a_cut_short_removal_is_swept(library: Library, tmp_path: Path) -> None:
    one, two = add(library, "one"), add(library, "two")
    library.set_tag("web", two.digest)
    with library.alone():
        library.remove(one.digest)
    assert library.list() == [two]
    with pytest.raises(PxebootError, match="is not in"):
        library.get(one.digest)
    two.path.rename(tmp_path / "images" / f".draft-{two.digest}")
    with library.alone():
        pass
    assert names(tmp_path / "images") == ["tags"]
