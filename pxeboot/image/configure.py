"""What a recipe adds to a tree of packages: files, accounts and commands, each run inside."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from string import Template

from pxeboot.errors import PxebootError
from pxeboot.image.command import run
from pxeboot.image.recipe import Recipe, User
from pxeboot.image.tree import EPOCH

_INSIDE = """\
cd "$1"
mkdir -p proc sys dev run tmp
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir run/lock
exec chroot . sh -euc "$2"
"""
"""All mounts are of the namespace that `run` makes for each program, and go with it."""

_NO_SERVICES = "#!/bin/sh\nexit 101\n"
"""No package script starts a service in the tree: invoke-rc.d's policy layer."""
_POLICY = "usr/sbin/policy-rc.d"
_RESOLVER = "etc/resolv.conf"


async def configure(tree: Path, recipe: Recipe, sources: Mapping[str, Path]) -> None:
    """Files first, then accounts, then commands, in order. Raises PxebootError.

    `sources` has the local file for each path of `[files]`.
    """
    for path, file in recipe.files.items():
        data = sources[path].read_bytes()
        await _write(tree, path, rendered(data, path, recipe) if file.template else data, file.mode)
    for name, user in recipe.users.items():
        await _inside(tree, account(name, user))
    if recipe.commands:
        await _run_commands(tree, recipe.commands)


def rendered(data: bytes, path: str, recipe: Recipe) -> bytes:
    """A template with the recipe's variables in the place of `$name`. Raises PxebootError."""
    try:
        return Template(data.decode()).substitute(recipe.variables).encode()
    except UnicodeDecodeError:
        raise PxebootError(f"files.{path}: a template must be text in UTF-8", "leave template out") from None
    except KeyError as error:
        raise PxebootError(
            f"files.{path}: there is no variable {error.args[0]!r}", "add it to [variables]; $$ is a plain $"
        ) from None
    except ValueError as error:
        raise PxebootError(f"files.{path}: {error}", "write $$ for a plain $") from None


def account(name: str, user: User) -> str:
    """The shell commands that make an account, or change one that is there. Source: useradd(8)."""
    quoted = shlex.quote
    options = [f"--shell {quoted(user.shell)}"] if user.shell else []
    options += [f"--groups {quoted(','.join(user.groups))}"] if user.groups else []
    numbered = f"--uid {user.uid} " if user.uid is not None else ""
    lines = [
        f"if getent passwd {name} >/dev/null; then",
        f"    usermod {' '.join((*options, name))}" if options else "    :",
        f"else useradd --create-home {numbered}{' '.join(options)} {name}; fi",
        f"printf '%s:%s\\n' {name} {quoted(user.password)} | chpasswd --encrypted" if user.password else "",
    ]
    return "\n".join([line for line in lines if line] + (_keys(name, user) if user.keys else []))


def _keys(name: str, user: User) -> list[str]:
    text = "".join(f"{key}\n" for key in user.keys)
    return [
        f"home=$(getent passwd {name} | cut -d: -f6); group=$(id -g {name})",
        f'install -d -m 700 -o {name} -g "$group" "$home/.ssh"',
        f'printf %s {shlex.quote(text)} >"$home/.ssh/authorized_keys"',
        f'chown {name}:"$group" "$home/.ssh/authorized_keys"; chmod 600 "$home/.ssh/authorized_keys"',
    ]


async def _write(tree: Path, path: str, data: bytes, mode: int) -> None:
    """The path is followed inside: a link there cannot lead out of the tree."""
    place = tree.parent / "added"
    place.write_bytes(data)
    script = f'mkdir -p "$(dirname "$1")"; cat >"$1"; chmod {mode:o} "$1"'
    inside = f'chroot "$1" sh -euc {shlex.quote(script)} sh "$2" <"$3"'
    await run("sh", "-euc", inside, "sh", tree, path, place)
    place.unlink()


async def _run_commands(tree: Path, commands: tuple[str, ...]) -> None:
    lent = _lend(tree)
    for command in commands:
        await _inside(tree, command)
    for path in lent:
        path.unlink(missing_ok=True)


def _lend(tree: Path) -> list[Path]:
    """What commands need that is not of the image: names are resolved, and no service starts."""
    lent = []
    for name, text, mode in ((_POLICY, _NO_SERVICES, 0o755), (_RESOLVER, _resolver(), 0o644)):
        path = tree / name
        if not path.exists() and not path.is_symlink():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(mode)
            lent.append(path)
    return lent


def _resolver() -> str:
    own = Path("/etc/resolv.conf")
    return own.read_text() if own.is_file() else ""


async def _inside(tree: Path, command: str) -> None:
    environment = {"SOURCE_DATE_EPOCH": str(EPOCH), "HOME": "/root"}
    await run("sh", "-euc", _INSIDE, "sh", tree, command, environment=environment)
