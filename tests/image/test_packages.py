from collections.abc import Sequence
from pathlib import Path

import pytest

from pxeboot.errors import PxebootError
from pxeboot.image import packages
from pxeboot.image.apt import Apt, Source
from pxeboot.image.command import CommandFailed
from pxeboot.image.packages import Plan
from pxeboot.image.recipe import Recipe

SOURCE = Source("http://mirror/debian", ("bookworm",), "main")
RECIPE = Recipe(name="site", packages=("apache2",))


class Answers(Apt):
    """An apt that says what it is told to say."""

    def __init__(self, *lines: str, fails: bool = False) -> None:
        self._lines, self._fails = list(lines), fails
        self.asked: tuple[str, ...] = ()

    async def simulate(self, *packages: str) -> list[str]:
        """What it was asked for is kept."""
        self.asked = packages
        if self._fails:
            raise CommandFailed("apt-get", 100, self._lines)
        return self._lines


async def plan(*lines: str, recipe: Recipe = RECIPE, sources: Sequence[Source] = (SOURCE,)) -> Plan:
    return await packages.plan(recipe, Answers(*lines), sources)


BASH = "Inst bash (5.2 Debian:12/stable [amd64])"
DASH = "Inst dash (0.5 Debian:12/stable, Debian-Security:12 [amd64])"


async def test_a_plan_has_every_version_that_apt_would_install() -> None:
    apt = Answers("NOTE: a simulation", BASH, DASH, "Conf dash (0.5 Debian:12/stable [amd64])")
    found = await packages.plan(RECIPE, apt, [SOURCE])
    assert found.versions == ("bash=5.2 amd64", "dash=0.5 amd64")
    assert {"apt", "usr-is-merged", "?essential", "apache2"} <= set(apt.asked)


async def test_a_stage_is_known_by_what_went_in() -> None:
    same = [(await plan(*lines)).key for lines in ((BASH, DASH), (DASH, BASH))]
    assert same[0] == same[1]
    others = [
        await plan(BASH),
        await plan(BASH.replace("5.2", "5.3"), DASH),
        await plan(BASH, DASH, recipe=Recipe(name="site", packages=("nginx",))),
        await plan(BASH, DASH, sources=[Source("http://other", ("bookworm",), "main")]),
    ]
    assert len({same[0], *(other.key for other in others)}) == 5


async def test_names_files_and_commands_of_a_recipe_do_not_change_its_stage() -> None:
    other = Recipe(name="other", packages=("apache2",), commands=("true",), strip=("perl",))
    assert (await plan(BASH)).key == (await plan(BASH, recipe=other)).key


@pytest.mark.parametrize(
    "line",
    [
        "E: Unable to locate package apache3",
        "E: Package 'apache3' has no installation candidate",
        "E: Couldn't find any package by regex 'apache3'",
    ],
)
async def test_a_wrong_package_is_told_by_its_name(line: str) -> None:
    with pytest.raises(PxebootError, match="recipe site: packages: bookworm has no package 'apache3'"):
        await packages.plan(RECIPE, Answers("Reading package lists", line, fails=True), [SOURCE])


async def test_mmdebstrap_is_told_suite_packages_and_sources() -> None:
    arguments = (await plan(BASH)).arguments(Path("/x/suite.sources"), Path("/new/root"))
    assert "--include=usr-is-merged,apache2" in arguments
    assert arguments[-3:] == ["bookworm", "/new/root", "/x/suite.sources"]


@pytest.mark.net
async def test_a_stage_is_kept_and_the_oldest_ones_go(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/motd").write_text("hello")
    for number in range(packages.KEPT + 2):
        await packages._keep(tree, tmp_path / f"cache/{number}.tar.zst")
    kept = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert len(kept) == packages.KEPT
    assert kept[-1] == f"{packages.KEPT + 1}.tar.zst"
    (tmp_path / "again").mkdir()
    await packages._tar(tmp_path / "again", "-x", "-f", str(tmp_path / "cache" / kept[-1]))
    assert (tmp_path / "again/etc/motd").read_text() == "hello"
