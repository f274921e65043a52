"""Kernel configurations as fragments: read, merged, and held against what the kernel made of them. Pure.

Source: the kernel's Documentation/kbuild/kconfig-language.rst and kconfig.rst.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pxeboot.errors import PxebootError

_SETTING = re.compile(r"CONFIG_([A-Za-z0-9_]+)=(\S.*)")
_UNSET = re.compile(r"# CONFIG_([A-Za-z0-9_]+) is not set")
_ENTRY = re.compile(
    r"^(?:config|menuconfig|choice|menu|if|endif|endmenu|endchoice|source)\b.*$", re.MULTILINE
)
_DEPENDS = re.compile(r"^\s+depends on ((?:.*\\\n)*.*)$", re.MULTILINE)
OFF = "n"


def parse(text: str, name: str) -> dict[str, str]:
    """Values by option, without `CONFIG_`; `name` is the fragment's, for the error. Raises PxebootError."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if setting := _SETTING.fullmatch(line.strip()):
            found[setting[1]] = setting[2]
        elif unset := _UNSET.fullmatch(line.strip()):
            found[unset[1]] = OFF
        elif line.strip() and not line.lstrip().startswith("#"):
            raise PxebootError(
                f"{name}: line {number}: {line.strip()!r} is no setting", "write CONFIG_NAME=y, or n"
            )
    return found


def merge(fragments: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """All settings of these fragments, which are by name. Raises PxebootError where two contradict."""
    merged: dict[str, str] = {}
    for name, settings in fragments.items():
        for option, value in settings.items():
            if merged.setdefault(option, value) != value:
                other = next(key for key, known in fragments.items() if option in known)
                raise PxebootError(
                    f"fragments {other!r} and {name!r} contradict: "
                    f"CONFIG_{option} is {merged[option]} and {value}",
                    "let one of them leave it out",
                )
    return merged


def encode(settings: Mapping[str, str]) -> str:
    """The text of a configuration: the same for the same settings."""
    return "".join(f"CONFIG_{option}={settings[option]}\n" for option in sorted(settings))


@dataclass(frozen=True, slots=True)
class Lost:
    """A setting that did not survive the merge."""

    option: str
    wanted: str
    got: str
    reason: str

    def __str__(self) -> str:
        return f"CONFIG_{self.option}={self.wanted} became {self.got}: {self.reason}"


def lost(wanted: Mapping[str, str], got: Mapping[str, str], kconfig: Iterable[str]) -> list[Lost]:
    """What was wanted and is not so; `kconfig`: the texts of the source's Kconfig files, read on demand."""
    missing = {option: value for option, value in wanted.items() if got.get(option, OFF) != value}
    reasons = _reasons(missing, kconfig) if missing else {}
    return [Lost(option, value, got.get(option, OFF), reasons[option]) for option, value in missing.items()]


def _reasons(options: Iterable[str], kconfig: Iterable[str]) -> dict[str, str]:
    unseen = "this kernel has no such option"
    reasons = dict.fromkeys(options, unseen)
    for text in kconfig:
        for option in reasons:
            if f"config {option}\n" in text:
                reasons[option] = _depends(option, text)
    return reasons


def _depends(option: str, text: str) -> str:
    """What the entry of an option says it depends on."""
    start = re.search(rf"^(?:menu)?config {option}$", text, re.MULTILINE)
    if start is None:
        return "it is set by other options only"
    end = _ENTRY.search(text, start.end())
    found = _DEPENDS.findall(text[start.end() : end.start() if end else None])
    if not found:
        return "it follows from other options, or from the menu it stands in"
    return "it depends on " + " and ".join(" ".join(item.replace("\\\n", " ").split()) for item in found)
