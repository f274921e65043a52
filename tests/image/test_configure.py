import subprocess
from pathlib import Path

import pytest

from pxeboot.errors import PxebootError
from pxeboot.image.command import CommandFailed
from pxeboot.image.configure import account, configure, rendered
from pxeboot.image.recipe import Recipe, User

from .trees import names, write

VARIABLES = Recipe(name="site", variables={"site": "a.example"})


def test_a_templates_variables_are_the_recipes() -> None:
    assert rendered(b"Host $site costs $$5", "/etc/x", VARIABLES) == b"Host a.example costs $5"


@pytest.mark.parametrize(
    ("data", "told"),
    [(b"$other", "no variable 'other'"), (b"$ 5", "Invalid placeholder"), (b"\xff", "text in UTF-8")],
)
def test_a_faulty_template_is_told_by_the_path_of_its_file(data: bytes, told: str) -> None:
    with pytest.raises(PxebootError, match=f"files./etc/x: .*{told}"):
        rendered(data, "/etc/x", VARIABLES)


def test_an_accounts_words_are_quoted() -> None:
    text = account("eve", User(keys=("ssh-ed25519 AAAA it's; rm -rf /",), groups=("www-data", "adm")))
    assert "--groups www-data,adm" in text
    assert "'ssh-ed25519 AAAA it'\"'\"'s; rm -rf /\n'" in text
    subprocess.run(["sh", "-n", "-c", text], check=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The smallest system: busybox alone."""
    tree = tmp_path / "tree"
    for folder in ("bin", "etc"):
        (tree / folder).mkdir(parents=True)
    busybox = Path("/bin/busybox").read_bytes()
    (tree / "bin/busybox").write_bytes(busybox)
    (tree / "bin/busybox").chmod(0o755)
    for applet in ("sh", "cat", "mkdir", "dirname", "chmod", "echo", "mount", "ls", "test"):
        (tree / "bin" / applet).symlink_to("busybox")
    return tree


@pytest.mark.net
async def test_files_are_there_before_the_commands_run_inside(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "motd").write_text("hello $site")
    recipe = Recipe.model_validate({
        "name": "site",
        "variables": {"site": "a.example"},
        "files": {"/etc/a b/motd": {"source": "motd", "mode": 0o600, "template": True}},
        "commands": [
            "cat '/etc/a b/motd' >/seen", "test -e /proc/self && test -c /dev/null", "echo x >/tmp/gone",
        ],
    })  # fmt: skip
    await configure(tree, recipe, {"/etc/a b/motd": tmp_path / "motd"})
    assert (tree / "seen").read_text() == "hello a.example"
    assert (tree / "etc/a b/motd").stat().st_mode & 0o7777 == 0o600
    left = {name for name in names(tree) if not name.startswith("bin/")}
    assert left == {"seen", "etc/a b/motd"}  # nothing was mounted on the tree, and what was lent is gone


@pytest.mark.net
async def test_a_file_is_not_written_through_a_link_out_of_the_tree(tree: Path, tmp_path: Path) -> None:
    write(tmp_path, "outside/motd", "new")
    (tree / "etc/out").symlink_to(tmp_path / "outside")
    recipe = Recipe.model_validate({"name": "site", "files": {"/etc/out/motd": "new"}})
    with pytest.raises(CommandFailed):
        await configure(tree, recipe, {"/etc/out/motd": tmp_path / "new"})
    assert names(tmp_path / "outside") == {"motd"}


@pytest.mark.net
async def test_a_command_that_fails_ends_the_build_with_what_it_said(tree: Path) -> None:
    with pytest.raises(CommandFailed, match="no such thing"):
        await configure(tree, Recipe(name="site", commands=("echo no such thing; false; echo on",)), {})
