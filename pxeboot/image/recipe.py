"""What goes into an image: a small TOML file as typed, frozen models. Nothing here opens a file."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from pxeboot import toml
from pxeboot.image.rules import RULES
from pxeboot.words import Inside

CUSTOM = "custom:"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_FRAGMENT = re.compile(r"[a-z0-9][a-z0-9-]*")
_MODULE = re.compile(r"[A-Za-z0-9_*?\[\]-]+")


def image_name(text: str) -> str:
    """Accept the name of a recipe or of a tag: it is a file name too. Raises ValueError."""
    if not _NAME.fullmatch(text):
        raise ValueError(
            f"{text!r} is not a name of lower-case letters, digits, dots, dashes and underscores"
        )
    return text


def _package(text: str) -> str:
    if not _PACKAGE.fullmatch(text):
        raise ValueError(f"{text!r} is not the name of a Debian package")  # Debian Policy §5.6.1
    return text


def _module(text: str) -> str:
    if not _MODULE.fullmatch(text):
        raise ValueError(f"{text!r} is not the name of a kernel module, nor a pattern like 'nft_*'")
    return text


def _rule(text: str) -> str:
    if text not in RULES:
        raise ValueError(f"there is no strip rule {text!r}")
    return text


def _account(text: str) -> str:
    if not _ACCOUNT.fullmatch(text):
        raise ValueError(f"{text!r} is not the name of an account")  # useradd(8)
    return text


def _mirror(text: str) -> str:
    if not re.match(r"(deb )?.*[a-z]+://\S+$|deb .*\S+", text):
        raise ValueError(f"{text!r} is neither an address nor a line of sources.list")
    return text


def _kernel(text: str) -> str:
    names = text.removeprefix(CUSTOM).split(",") if text.startswith(CUSTOM) else []
    if not names:
        return _package(text)
    if not all(_FRAGMENT.fullmatch(name) for name in names):
        raise ValueError(f"{text!r} is not {CUSTOM!r} and names of kernel fragments with commas between")
    return text


def _entry(value: object) -> object:
    return {"source": value} if isinstance(value, str) else value


class AddedFile(BaseModel, frozen=True, extra="forbid"):
    """A value of `[files]`: `"motd"`, or `{ source = "run.sh", mode = 0o755 }`."""

    source: str = Field(min_length=1)
    """A local file; relative to the recipe's folder."""
    template: bool = False
    """`$name` in it stands for a variable of the recipe, `$$` for a dollar sign."""
    mode: int = Field(default=0o644, ge=0, le=0o7777)


class User(BaseModel, frozen=True, extra="forbid"):
    """A value of `[users]`: an account that is made, or changed where a package has made it."""

    keys: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """SSH keys that may log in: lines of authorized_keys, or names of local files with such lines."""
    groups: tuple[Annotated[str, AfterValidator(_account)], ...] = ()
    """Beside its own one; they must be there."""
    shell: str = Field(default="", pattern=r"^(/[^\s:]+)?$")
    uid: int | None = Field(default=None, ge=1, le=65533)
    password: str = Field(default="", pattern=r"^(\$[^\s:]+)?$")
    """As crypt(5) has it, never in plain; left out: no password opens it."""


class SquashFs(BaseModel, frozen=True, extra="forbid"):
    """The `[squashfs]` table."""

    compression: Literal["zstd", "xz"] = "zstd"
    """Measured on the `web` image: xz is a seventh smaller, and takes five times as long to read."""
    level: int = Field(default=15, ge=1, le=22)
    """Of zstd: 15 takes a third of the time of 19, and gives 1 % more bytes. xz has no levels here."""
    block_kib: Literal[128, 256, 512, 1024] = 256
    """Size of the blocks that are packed and read at once, KiB. Measured with zstd 15: 256 gives 4 %
    fewer bytes than 128 at the same cost of a read; larger ones give more bytes again, and take longer."""

    @model_validator(mode="after")
    def _level_is_of_zstd(self) -> Self:
        if self.compression == "xz" and "level" in self.model_fields_set:
            raise ValueError("level is of zstd; xz has none")
        return self


class Recipe(BaseModel, frozen=True, extra="forbid"):
    """The whole file."""

    name: Annotated[str, AfterValidator(image_name)]
    """Also the tag that a build moves when none is given."""
    extends: str | None = Field(default=None, min_length=1)
    """Another recipe, by name or path: this one adds to its lists and tables, and holds over the rest."""
    suite: str = Field(default="bookworm", pattern=r"^[a-z][a-z0-9-]*$")
    """The code name of a release of Debian or Ubuntu."""
    mirror: tuple[Annotated[str, AfterValidator(_mirror)], ...] = ()
    """Where packages come from: addresses, or lines of sources.list(5). Left out: the host's sources."""
    keyring: Annotated[str, Field(pattern=r"^/")] | None = None
    """The keys that sign the mirror, when they are not the distribution's."""
    base: str | None = Field(default=None, min_length=1)
    """A local folder, tar or OCI image layout to begin with, instead of the suite's packages."""
    packages: tuple[Annotated[str, AfterValidator(_package)], ...] = ()
    """Debian packages, beside the essential ones."""
    strip: tuple[Annotated[str, AfterValidator(_rule)], ...] = ()
    """Rules of `rules.py` for what to leave out at the end."""
    keep: tuple[Annotated[str, AfterValidator(_rule)], ...] = ()
    """Of the rules of what this one extends, those that are not to be applied."""
    drop: tuple[Inside, ...] = ()
    """What else to leave out. A `*` matches slashes too, as in dpkg's `path-exclude`."""
    files: dict[Inside, Annotated[AddedFile, BeforeValidator(_entry)]] = {}
    """What to add, by path inside the image, before the commands run. Owned by root."""
    variables: dict[Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*$")], str] = {}
    """For templates among the files."""
    users: dict[Annotated[str, AfterValidator(_account)], User] = {}
    """Accounts, made before the commands run."""
    commands: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Shell commands run inside, in order, each by a `sh -eu` of its own."""
    kernel: Annotated[str, AfterValidator(_kernel)] = "linux-image-amd64"
    """Its package, or one that depends on it; `custom:virt,nic`: one of our own, of these fragments."""
    modules: tuple[Annotated[str, AfterValidator(_module)], ...] = ()
    """Kernel modules, or patterns of them, which the running system may load. What drives the machine's own
    hardware is loaded by the initrd before."""
    squashfs: SquashFs = SquashFs()

    @property
    def fragments(self) -> tuple[str, ...] | None:
        """The fragments of a custom kernel; None where Debian's is wanted."""
        custom = self.kernel.startswith(CUSTOM)
        return tuple(self.kernel.removeprefix(CUSTOM).split(",")) if custom else None


_JOINED = ("packages", "strip", "drop", "modules", "commands")
_MERGED = ("files", "variables", "users")


def extended(below: Recipe, above: Recipe) -> Recipe:
    """`above` standing on `below`: lists are joined, tables merged, all else is of the one that says it."""
    said = above.model_fields_set
    whole = {name: getattr(above if name in said else below, name) for name in Recipe.model_fields}
    whole |= {name: (*getattr(below, name), *getattr(above, name)) for name in _JOINED}
    whole |= {name: getattr(below, name) | getattr(above, name) for name in _MERGED}
    whole |= {name: tuple(dict.fromkeys(whole[name])) for name in _JOINED if name != "commands"}
    whole["strip"] = tuple(rule for rule in whole["strip"] if rule not in above.keep)
    if "base" in said and above.base is not None:
        whole["packages"] = above.packages
    return Recipe.model_construct(said | below.model_fields_set, **(whole | {"extends": None, "keep": ()}))


def parse(text: str, name: str) -> Recipe:
    """Read a recipe; `name` is its file's. Raises PxebootError with file, key, value and remedy."""
    return toml.read(text, name, Recipe, lambda error: _HINTS[str(error["loc"][0])])


_HINTS = {
    "name": 'write name = "web", say: it becomes the image\'s tag',
    "extends": 'write the name of a shipped recipe, or a path like "../web/recipe.toml"',
    "mirror": 'write addresses, or lines like "deb http://archive.ubuntu.com/ubuntu noble main universe"',
    "keyring": "write the path of a keyring on this machine",
    "base": "write the path of a folder, a tar or an OCI image layout; packages are only of a suite",
    "variables": 'write name = "text"; names are in lower case',
    "users": 'write alice = { keys = ["ssh-ed25519 ..."], groups = ["www-data"] }',
    "keep": f"the rules are: {', '.join(RULES)}",
    "suite": 'write the code name of a Debian release, like "bookworm"',
    "packages": "write package names without versions; `apt-cache search WORD` finds them",
    "strip": f"the rules are: {', '.join(RULES)}",
    "drop": 'write patterns of paths inside the image, like "/usr/share/doc/*"',
    "files": 'write "/path/in/the/image" = "local file", or { source = "local file", mode = 0o755 }',
    "commands": "write a list of shell commands",
    "kernel": 'write a package, like "linux-image-amd64", or fragments, like "custom:virt,nic,nfs"',
    "modules": "write names of kernel modules, as `modinfo` knows them",
    "squashfs": 'write compression = "zstd" with a level from 1 to 22, or "xz", and block_kib',
}
