import pytest

from pxeboot.errors import PxebootError
from pxeboot.image.recipe import AddedFile, Recipe, extended, parse


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


def test_what_extends_adds_to_lists_and_tables_and_holds_over_the_rest() -> None:
    below = parse(
        """
        name = "web"
        suite = "trixie"
        packages = ["apache2", "php"]
        strip = ["perl", "icu-data"]
        commands = ["one"]
        files = { "/a" = "a", "/b" = "b" }
        users = { eve = { uid = 2000 } }
        squashfs = { level = 3 }
        """,
        "below.toml",
    )
    above = parse(
        """
        name = "shop"
        extends = "web"
        packages = ["php-intl", "php"]
        keep = ["icu-data"]
        strip = ["locales"]
        commands = ["one"]
        files = { "/b" = "mine" }
        kernel = "linux-image-cloud-amd64"
        """,
        "above.toml",
    )
    whole = extended(below, above)
    assert (whole.name, whole.suite, whole.kernel) == ("shop", "trixie", "linux-image-cloud-amd64")
    assert whole.packages == ("apache2", "php", "php-intl")
    assert whole.strip == ("perl", "locales")
    assert whole.commands == ("one", "one")
    assert {path: file.source for path, file in whole.files.items()} == {"/a": "a", "/b": "mine"}
    assert (whole.users["eve"].uid, whole.squashfs.level, whole.extends) == (2000, 3, None)


def test_a_recipe_of_three_floors_keeps_what_the_lowest_says() -> None:
    one, two, three = (
        parse(text, "recipe.toml")
        for text in (
            'name="a"\nsuite="sid"\nkernel="linux-image-x"',
            'name="b"\nextends="a"',
            'name="c"\nextends="b"',
        )
    )
    whole = extended(extended(one, two), three)
    assert (whole.name, whole.suite, whole.kernel) == ("c", "sid", "linux-image-x")
    assert "kernel" in whole.model_fields_set


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ('strip = ["pearl"]', "there is no strip rule 'pearl'", "perl"),
        ('mirror = ["nowhere"]', "'nowhere' is neither an address nor a line", "deb http://"),
        ('users = { "a b" = {} }', "'a b' is not the name of an account", "keys"),
        ('users = { eve = { password = "plain" } }', "users.eve.password", "keys"),
        ('users = { eve = { shell = "sh" } }', "users.eve.shell", "keys"),
        ('variables = { "A-B" = "x" }', "variables.A-B", "lower case"),
        ('squashfs = { compression = "xz", level = 9 }', "level is of zstd", "block_kib"),
        ("squashfs = { block_kib = 100 }", "squashfs.block_kib", "block_kib"),
    ],
)
def test_faults_of_the_newer_keys_are_told_too(line: str, message: str, hint: str) -> None:
    with pytest.raises(PxebootError) as caught:
        parse(f'name = "web"\n{line}', "recipe.toml")
    assert message in str(caught.value)
    assert hint in caught.value.hint


def test_a_custom_kernel_is_fragments_with_commas_between() -> None:
    assert parse('name = "web"\nkernel = "custom:virt,nic"', "r.toml").fragments == ("virt", "nic")
    assert parse('name = "web"', "r.toml").fragments is None
