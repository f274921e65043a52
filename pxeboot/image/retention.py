"""Where a tag goes back to, and which images nobody needs any more. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from pydantic import BaseModel, Field

from pxeboot.image.manifest import DIGEST_PATTERN


class TagStep(BaseModel, frozen=True, extra="forbid"):
    """What a tag pointed to from some moment on."""

    digest: str = Field(pattern=DIGEST_PATTERN)
    since: float
    """Unix seconds."""
    back: bool = False
    """It was a rollback: what it left is not gone back to by the next one."""


def standing(history: Sequence[TagStep]) -> list[str]:
    """The digests that a tag has had and not gone back from, present one last; `history`: newest first."""
    stack: list[str] = []
    for step in reversed(history):
        if step.back and step.digest in stack:
            while stack[-1] != step.digest:
                stack.pop()
        else:
            stack.append(step.digest)
    return stack


def earlier(history: Sequence[TagStep]) -> str | None:
    """Where a rollback leads: the last image before the present one; None when there is none."""
    return next(iter(standing(history)[-2::-1]), None)


def removable(
    digests: Iterable[str], histories: Mapping[str, Sequence[TagStep]], running: Iterable[str], keep: int
) -> list[str]:
    """Which of `digests` may go: no node runs it, and it is not among the last `keep` of any tag."""
    needed = set(running)
    for history in histories.values():
        needed |= set(list(dict.fromkeys(step.digest for step in history))[:keep])
    return [digest for digest in digests if digest not in needed]
