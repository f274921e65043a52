"""What is checked, and what is known of it: the words between the balancer's loop and its checker."""

from dataclasses import dataclass

from pxeboot.balancer.service import Address
from pxeboot.mac import Mac

HISTORY_KEPT = 20


@dataclass(frozen=True, slots=True)
class Target:
    """One node as a real server of one service; `port` is where the check asks (0: it has none)."""

    service: str
    mac: Mac
    address: Address
    port: int
    node: str = ""
    """Its name, for logs and scripts."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One look: when (Unix seconds), how it ended, and in what words."""

    at: float
    good: bool
    text: str
    seconds: float
    """How long it took."""


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of a target."""

    passing: bool | None = None
    """None: nothing has been decided yet."""
    since: float = 0.0
    """When that was decided, Unix seconds."""
    history: tuple[Outcome, ...] = ()
    """The last HISTORY_KEPT looks, oldest first."""
    streak: int = 0
    """How many of the latest looks ended alike."""
    turns: tuple[Outcome, ...] = ()
    """The last HISTORY_KEPT looks that settled or changed `passing`, oldest first."""

    @property
    def last(self) -> Outcome | None:
        """The latest look."""
        return self.history[-1] if self.history else None
