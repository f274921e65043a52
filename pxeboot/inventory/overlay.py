"""What is laid over a node's root at boot: files and templates, its group's and its own, and what lasts."""

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, Field

MAX_FILES_BYTES = 1_000_000
"""Of one node's own files together: they are kept in memory, and what is large belongs in the image."""
_VARIABLE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_OWNER = re.compile(r"[a-z_][a-z0-9_-]{0,31}(:[a-z_][a-z0-9_-]{0,31})?")
GIVEN = frozenset({"name", "mac", "address", "group", "domain", "server", "image", "machine_id"})
"""What every template knows without being told."""


def variable(text: str) -> str:
    """Accept the name of a template's variable. Raises ValueError."""
    if not _VARIABLE.fullmatch(text):
        raise ValueError(f"{text!r} is not a name of lower-case letters, digits and underscores")
    if text in GIVEN:
        raise ValueError(f"{text!r} is given by pxeboot itself")
    return text


def owner(text: str) -> str:
    """Accept `user` or `user:group`, names of the image's system. Raises ValueError."""
    if not _OWNER.fullmatch(text):
        raise ValueError(f"{text!r} is not a user, nor user:group")
    return text


Variable = Annotated[str, AfterValidator(variable)]
Owner = Annotated[str, AfterValidator(owner)]
Vars = dict[Variable, Annotated[str, Field(max_length=10_000)]]


class Laid(BaseModel, frozen=True, extra="forbid"):
    """How a file lies in the root."""

    mode: int = Field(default=0o644, ge=0, le=0o7777)
    owner: Owner = "root:root"
    template: bool = False
    """Its `$name`, `$address` and so on are replaced; `$$` is a dollar sign."""


@dataclass(frozen=True, slots=True)
class NodeFile:
    """A file of one node alone; its contents are kept in the store."""

    data: bytes
    laid: Laid = field(default_factory=Laid)


@dataclass(frozen=True, slots=True)
class Lasting:
    """What a machine is known by, made once and the same in all its boots."""

    machine_id: str
    """machine-id(5): 32 hexadecimal digits."""
    ssh_host_key: str
    """An ed25519 private key in OpenSSH's own format."""
    ssh_host_public: str
    """Its public half, `ssh-ed25519 AAAA…`, as it stands in known_hosts(5)."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """One node's part."""

    vars: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, NodeFile] = field(default_factory=dict)
    """By path in the root."""
    lasting: Lasting | None = None

    def to_json(self) -> dict[str, Any]:
        """As the store keeps it."""
        kept = self.lasting
        return {
            "vars": dict(self.vars),
            "files": {
                path: {"data": b64encode(file.data).decode(), **file.laid.model_dump()}
                for path, file in self.files.items()
            },
            "lasting": None
            if kept is None
            else {
                "machine_id": kept.machine_id,
                "ssh_host_key": kept.ssh_host_key,
                "ssh_host_public": kept.ssh_host_public,
            },
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        """What `to_json` wrote."""
        files = {
            path: NodeFile(b64decode(told["data"]), Laid(**{key: told[key] for key in Laid.model_fields}))
            for path, told in kept.get("files", {}).items()
        }
        lasting = kept.get("lasting")
        return cls(kept.get("vars", {}), files, Lasting(**lasting) if lasting else None)
