"""What an image is made of, as canonical bytes: their SHA-256 is the image's digest."""

import hashlib
import json
from typing import Literal, Self

from pydantic import BaseModel, Field, ValidationError

from pxeboot.errors import PxebootError

DIGEST_PATTERN = r"^[0-9a-f]{64}$"


class Artefact(BaseModel, frozen=True, extra="forbid"):
    """One file of an image."""

    sha256: str = Field(pattern=DIGEST_PATTERN)
    size: int = Field(ge=0)
    """Bytes."""


class Artefacts(BaseModel, frozen=True, extra="forbid"):
    """The three files of an image."""

    root: Artefact
    kernel: Artefact
    initrd: Artefact


class Package(BaseModel, frozen=True, extra="forbid"):
    """One Debian package that was installed."""

    name: str
    version: str
    size: int = Field(ge=0)
    """Bytes of those of its files that are in the image."""


class Stripped(BaseModel, frozen=True, extra="forbid"):
    """What one strip rule left out."""

    rule: str
    size: int
    """Bytes, unpacked."""


class Manifest(BaseModel, frozen=True, extra="forbid"):
    """The contents of `manifest.json`.

    It holds no times and no names of machines, so that the same contents have the same digest wherever and
    whenever they were built.
    """

    format: Literal[2] = 2
    recipe: str
    suite: str
    kernel_version: str
    """As `uname -r` says it."""
    artefacts: Artefacts
    unpacked_bytes: int = Field(ge=0)
    """Sum of the sizes of the regular files of the root, each counted once."""
    packages: tuple[Package, ...]
    """Every Debian package that was installed, by name."""
    stripped: tuple[Stripped, ...] = ()
    """What the recipe's strip rules left out, in the order in which they were applied."""

    def encode(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, UTF-8, one newline at the end."""
        text = json.dumps(
            self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )
        return text.encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes, name: str = "manifest.json") -> Self:
        """Read a manifest; `name` stands in the error. Raises PxebootError."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise PxebootError(
                f"{name}: {key + ': ' if key else ''}{first['msg']}", "the image is damaged: build it again"
            ) from None

    @property
    def digest(self) -> str:
        """The image's name: 64 hexadecimal digits."""
        return hashlib.sha256(self.encode()).hexdigest()
