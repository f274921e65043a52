"""The files laid over one node's root, as a tar archive: chosen, filled in and packed. Pure.

Later ones hold over earlier ones of the same path: what lasts, the group's, the node's own.
"""

import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from string import Template

from pxeboot.errors import PxebootError
from pxeboot.inventory.overlay import Laid, Lasting, NodeFile

_SECRET = Laid(mode=0o600)


@dataclass(frozen=True, slots=True)
class RootFile:
    """One file as it will lie in the root."""

    path: str
    data: bytes
    mode: int = 0o644
    owner: str = "root:root"


def lasting_files(kept: Lasting) -> dict[str, NodeFile]:
    """machine-id(5), and the host key under sshd_config(5)'s own name for it."""
    return {
        "/etc/machine-id": NodeFile(f"{kept.machine_id}\n".encode(), Laid(mode=0o444)),
        "/etc/ssh/ssh_host_ed25519_key": NodeFile(kept.ssh_host_key.encode(), _SECRET),
        "/etc/ssh/ssh_host_ed25519_key.pub": NodeFile(f"{kept.ssh_host_public}\n".encode()),
    }


def lay(parts: Iterable[Mapping[str, NodeFile]], words: Mapping[str, str]) -> list[RootFile]:
    """The files by path, templates filled in with `words`. Raises PxebootError where that fails."""
    chosen: dict[str, NodeFile] = {}
    for part in parts:
        chosen.update(part)
    return [
        RootFile(
            path,
            _filled(path, file.data, words) if file.laid.template else file.data,
            file.laid.mode,
            file.laid.owner,
        )
        for path, file in sorted(chosen.items())
    ]


def _filled(path: str, data: bytes, words: Mapping[str, str]) -> bytes:
    try:
        return Template(data.decode()).substitute(words).encode()
    except KeyError as error:
        raise PxebootError(
            f"{path}: the template wants ${error.args[0]}, which is not set",
            f"set it in the group's vars or with `pxeboot node set NODE --var {error.args[0]}=…`",
        ) from None
    except UnicodeDecodeError:
        raise PxebootError(f"{path}: the template is not UTF-8", "leave template = true out") from None
    except ValueError as error:
        raise PxebootError(f"{path}: the template has a $ that names nothing: {error}", "write $$") from None


def archive(files: Iterable[RootFile]) -> bytes:
    """A tar in GNU format, which busybox reads. The same files give the same bytes."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for file in files:
            member = tarfile.TarInfo(file.path.lstrip("/"))
            member.size, member.mode = len(file.data), file.mode
            member.uname, _, group = file.owner.partition(":")
            member.gname = group or member.uname
            tar.addfile(member, io.BytesIO(file.data))
    return packed.getvalue()
