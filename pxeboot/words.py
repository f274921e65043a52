"""Words that stand in several tables of the configuration."""

import re
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def host_name(text: str) -> str:
    """Accept one DNS label in lower case (RFC 1123 §2.1). Raises ValueError."""
    if not LABEL.fullmatch(text):
        raise ValueError(f"{text!r} is not a name of lower-case letters, digits and inner dashes")
    return text


Name = Annotated[str, AfterValidator(host_name)]


def inside(text: str) -> str:
    """Accept an absolute path or pattern inside a root file system, spelled in one way only."""
    path = PurePosixPath(text)
    odd = not path.is_absolute() or ".." in path.parts or str(path) != text or len(path.parts) < 2
    if odd or not text.isprintable():
        raise ValueError(f"{text!r} is not an absolute path inside the image, like /etc/motd")
    return text


Inside = Annotated[str, AfterValidator(inside)]
