"""Words that stand in several tables of the configuration."""

import re
from typing import Annotated

from pydantic import AfterValidator

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def host_name(text: str) -> str:
    """Accept one DNS label in lower case (RFC 1123 §2.1). Raises ValueError."""
    if not LABEL.fullmatch(text):
        raise ValueError(f"{text!r} is not a name of lower-case letters, digits and inner dashes")
    return text


Name = Annotated[str, AfterValidator(host_name)]
