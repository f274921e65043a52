import pytest

from pxeboot.errors import PxebootError
from pxeboot.image.recipe import AddedFile, Recipe, parse


def test_a_name_is_enough() -> None:
    assert parse('name = "web"', "recipe.toml") == Recipe(name="web")


def test_everything_a_recipe_says_is_read() -> None:
    recipe = parse(
        """
        name = "web"
        suite = "trixie"
        packages = ["apache2", "g++"]
        drop = ["/usr/share/doc/*"]
        commands = ["true"]
        kernel = "linux-image-cloud-amd64"
        modules = ["nfs", "nft_*"]
        [files]
        "/etc/motd" = "motd"
        "/usr/bin/run me" = { source = "run", mode = 0o755 }
        [squashfs]
        level = 19
        """,
        "recipe.toml",
    )
    assert (recipe.suite, recipe.packages, recipe.drop) == (
        "trixie",
        ("apache2", "g++"),
        ("/usr/share/doc/*",),
    )
    assert (recipe.commands, recipe.kernel) == (("true",), "linux-image-cloud-amd64")
    assert recipe.modules == ("nfs", "nft_*")
    assert recipe.files["/etc/motd"] == AddedFile(source="motd", mode=0o644)
    assert recipe.files["/usr/bin/run me"] == AddedFile(source="run", mode=0o755)
    assert recipe.squashfs.level == 19


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("name = web", "Invalid value", "mend the TOML"),
        ('name = "../web"', "name: '../web' is not a name", "tag"),
        ('name = "web"\npackges = []', "packges: unknown key", "packages"),
        ("suite = 'bookworm'", "name: is missing", "name ="),
        ('name = "web"\nsuite = 12', "suite: 12: input should be a valid string", "bookworm"),
        ('name = "web"\npackages = ["apache2,nginx"]', "packages.1: 'apache2,nginx' is not", "apt-cache"),
        ('name = "web"\npackages = ["-oDebug=1"]', "packages.1: '-oDebug=1' is not", "apt-cache"),
        ('name = "web"\ndrop = ["usr/share"]', "drop.1: 'usr/share' is not an absolute path", "patterns"),
        ('name = "web"\ndrop = ["/"]', "drop.1: '/' is not an absolute path inside", "patterns"),
        ('name = "web"\nfiles = { "/a/../b" = "c" }', "files./a/../b: '/a/../b' is not", "local file"),
        ('name = "web"\nfiles = { "/a" = { text = "c" } }', "files./a.source: is missing", "local file"),
        (
            'name = "web"\nfiles = { "/a" = { source = "b", owner = "c" } }',
            "files./a.owner: unknown key",
            "mode",
        ),
        (
            'name = "web"\nfiles = { "/a" = { source = "b", mode = 65536 } }',
            "files./a.mode: 65536: input should be less than or equal to 4095",
            "mode = 0o755",
        ),
        ('name = "web"\nkernel = "Linux"', "kernel: 'Linux' is not", "linux-image-amd64"),
        ('name = "web"\nmodules = ["nfs.ko"]', "modules.1: 'nfs.ko' is not", "modinfo"),
        ('name = "web"\n[squashfs]\nlevel = 23', "squashfs.level: 23: input should be less", "1 to 22"),
        (
            'name = "web"\n[squashfs]\ncompression = "lzma"',
            "squashfs.compression: 'lzma': input should be 'zstd'",
            "zstd",
        ),
        ('name = "web"\n[squashfs]\nxz = 1', "squashfs.xz: unknown key", "compression, level"),
    ],
)
def test_an_error_names_file_key_value_and_remedy(line: str, message: str, hint: str) -> None:
    with pytest.raises(PxebootError) as caught:
        parse(line, "some/recipe.toml")
    assert str(caught.value).startswith("some/recipe.toml: ")
    assert message in str(caught.value)
    assert hint in caught.value.hint
