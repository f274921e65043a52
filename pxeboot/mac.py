"""MAC addresses."""

import re
from typing import Any, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_DIGITS = re.compile(r"[0-9a-f]{12}")


class Mac(str):
    """An Ethernet address, always in the form `52:54:00:ab:cd:ef`.

    A `str`, so that it is a key in JSON, in SQL and in a dictionary without conversion. Make one with
    `parse` or `from_bytes`; the constructor trusts its argument.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read any usual spelling: colons, dashes, dots or none. Raises ValueError."""
        digits = re.sub(r"[:.-]", "", text.strip().lower())
        if not _DIGITS.fullmatch(digits):
            raise ValueError(f"{text!r} is not a MAC address, like 52:54:00:12:34:56")
        return cls.from_bytes(bytes.fromhex(digits))

    @classmethod
    def from_bytes(cls, packed: bytes) -> Self:
        """Six bytes as they stand on the wire. Raises ValueError."""
        if len(packed) != 6:
            raise ValueError(f"a MAC address has 6 bytes, not {len(packed)}")
        return cls(packed.hex(":"))

    @property
    def packed(self) -> bytes:
        """Six bytes, as they stand on the wire."""
        return bytes.fromhex(self.replace(":", ""))

    @property
    def dashed(self) -> str:
        """`52-54-00-ab-cd-ef`, as PXELINUX spells it in file names and in BOOTIF."""
        return self.replace(":", "-")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls.parse, core_schema.str_schema())
