"""What a boot is: one attempt of one machine, stage by stage."""

from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import IPv4Address
from typing import Any, Self

from pxeboot.mac import Mac


class Stage(Enum):
    """Where a boot is, in the order of a good one; then the states beside it."""

    DISCOVER = "discover"
    """The machine has asked for an address."""
    ADDRESS = "address"
    """It has one."""
    LOADER = "loader"
    """It fetches a boot loader over TFTP."""
    SCRIPT = "script"
    """Its loader has asked what to boot."""
    KERNEL = "kernel"
    INITRD = "initrd"
    NETWORK = "network"
    """Our initrd runs and has the network up."""
    IMAGE = "image"
    """It loads the root image into RAM."""
    ROOT = "root"
    """The image is verified and mounted; the system starts."""
    READY = "ready"
    SERVING = "serving"
    DRAINING = "draining"
    REBOOTING = "rebooting"
    FAILED = "failed"
    LOST = "lost"


_PATH = (
    Stage.DISCOVER,
    Stage.ADDRESS,
    Stage.LOADER,
    Stage.SCRIPT,
    Stage.KERNEL,
    Stage.INITRD,
    Stage.NETWORK,
    Stage.IMAGE,
    Stage.ROOT,
    Stage.READY,
)
_IN_INITRD = frozenset({Stage.NETWORK, Stage.IMAGE, Stage.ROOT})
BEFORE_KERNEL_RUNS = frozenset(_PATH[: _PATH.index(Stage.NETWORK)])
"""Firmware and loader have the machine; a loader may ask for its script again."""
UP = frozenset({Stage.READY, Stage.SERVING, Stage.DRAINING})
"""The system runs and sends heartbeats."""


def _later(stage: Stage) -> frozenset[Stage]:
    return frozenset(_PATH[_PATH.index(stage) + 1 :])


ALLOWED: dict[Stage, frozenset[Stage]] = {
    # A stage may be passed without being seen: not every firmware needs a loader, and a report can be lost.
    **{stage: _later(stage) | {Stage.FAILED, Stage.LOST} for stage in _PATH},
    Stage.READY: frozenset({Stage.SERVING, Stage.DRAINING, Stage.REBOOTING, Stage.FAILED, Stage.LOST}),
    Stage.SERVING: frozenset({Stage.READY, Stage.DRAINING, Stage.REBOOTING, Stage.FAILED, Stage.LOST}),
    Stage.DRAINING: frozenset({Stage.READY, Stage.SERVING, Stage.REBOOTING, Stage.FAILED, Stage.LOST}),
    Stage.REBOOTING: frozenset({Stage.FAILED, Stage.LOST}),
    # A failed initrd goes on trying, and a lost node may only have been cut off.
    Stage.FAILED: _IN_INITRD | {Stage.READY, Stage.REBOOTING, Stage.LOST},
    Stage.LOST: _later(Stage.LOADER) | {Stage.REBOOTING, Stage.FAILED},
}

LIMIT_SECONDS: dict[Stage, float] = {
    # How long a boot may stay in a stage without news; then it has failed there.
    Stage.DISCOVER: 60,
    Stage.ADDRESS: 120,
    Stage.LOADER: 120,
    Stage.SCRIPT: 120,
    Stage.KERNEL: 300,  # firmware may load slowly
    Stage.INITRD: 300,  # slow links: STP holds a port for 50 s, LACP for longer
    Stage.NETWORK: 300,
    Stage.IMAGE: 300,  # counts from the last report of progress
    Stage.ROOT: 600,
    Stage.REBOOTING: 600,
}
HEARTBEAT_SECONDS = 10.0
TRANSFERS_KEPT = 20
LOST_SECONDS = 35.0
"""Three heartbeats missed, and a little."""

_STILL_TO_COME = {
    Stage.DISCOVER: "the machine did not take the address it was offered",
    Stage.ADDRESS: "it never fetched what it was told to boot",
    Stage.LOADER: "the loader never asked for its script",
    Stage.SCRIPT: "the loader never fetched the kernel",
    Stage.KERNEL: "the initrd was never fetched",
    Stage.INITRD: "the initrd never reported; its console tells why",
    Stage.NETWORK: "the download never began",
    Stage.IMAGE: "the download stopped",
    Stage.ROOT: "the system never came up; its console tells why",
    Stage.REBOOTING: "it never asked for an address again",
}


class WrongStep(Exception):
    """A step that the table of allowed steps does not have."""


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot attempt. Times are Unix seconds; `reached` has the first time of each stage."""

    id: str
    mac: Mac
    stage: Stage
    started: float
    reached: dict[Stage, float]
    heard: float
    """When anything was last heard of it."""
    address: IPv4Address | None = None
    firmware: str = ""
    """Architecture, vendor class and user class, as one line."""
    loader: str = ""
    image: str = ""
    """Digest of the image it was told to load."""
    detail: str = ""
    done: int = 0
    total: int = 0
    """Bytes of what the present stage loads."""
    retries: int = 0
    failure: str = ""
    """`class: one sentence`, when the stage is failed or lost."""
    services: str = ""
    """What the node has set up for services, as it told (`balancer.equipment`)."""
    sent: dict[str, int] = field(default_factory=dict)
    """Bytes sent to it, by protocol and name (`tftp undionly.kpxe`, `http kernel`)."""
    transfers: tuple[dict[str, Any], ...] = ()
    """Its last TRANSFERS_KEPT reads by TFTP as JSON values: name, options asked and granted, how it went."""

    @classmethod
    def begin(cls, id: str, mac: Mac, firmware: str, now: float) -> Self:
        """A machine asks for an address to boot from."""
        return cls(
            id, mac, Stage.DISCOVER, started=now, reached={Stage.DISCOVER: now}, heard=now, firmware=firmware
        )

    @property
    def failure_class(self) -> str:
        """The word before the colon of `failure`."""
        return self.failure.partition(":")[0]

    def step(self, stage: Stage, now: float, **facts: Any) -> Self:
        """This boot in the next stage, or the same one with news. Raises WrongStep."""
        if stage is not self.stage and stage not in ALLOWED[self.stage]:
            raise WrongStep(f"{self.stage.value} is not followed by {stage.value}")
        moved = stage is not self.stage
        changes: dict[str, Any] = {
            "stage": stage,
            "heard": now,
            "reached": self.reached if stage in self.reached else {**self.reached, stage: now},
        }
        if moved:
            changes |= {"detail": "", "done": 0, "total": 0, "failure": ""}
        return replace(self, **(changes | facts))

    def may(self, stage: Stage) -> bool:
        """Whether `step` to that stage is allowed."""
        return stage is self.stage or stage in ALLOWED[self.stage]

    def overdue(self, now: float) -> tuple[Stage, str] | None:
        """What silence has made of this boot: the stage it is in now, and the failure's sentence."""
        silent = now - self.heard
        if self.stage in UP:
            return (Stage.LOST, f"silent: no heartbeat for {silent:.0f} s") if silent > LOST_SECONDS else None
        limit = LIMIT_SECONDS.get(self.stage)
        if limit is None or silent <= limit:
            return None
        return Stage.FAILED, f"{self.stage.value}: {_STILL_TO_COME[self.stage]} within {limit:.0f} s"


def continues(boot: Boot | None, is_loader: bool, now: float) -> bool:
    """Whether a machine asking for an address is still in this boot, or has begun another.

    `is_loader`: the packet is an iPXE's, which may have been loaded a moment ago by the firmware that began
    this boot. Plain firmware that asks again is either repeating its question or has been restarted.
    """
    if boot is None or now - boot.heard > LIMIT_SECONDS[Stage.DISCOVER]:
        return False
    early = {Stage.DISCOVER, Stage.ADDRESS}
    return boot.stage in (early | {Stage.LOADER} if is_loader else early)


def to_json(boot: Boot) -> dict[str, Any]:
    """A boot as JSON values; `from_json` reads it."""
    record = {name: getattr(boot, name) for name in Boot.__dataclass_fields__}
    return record | {
        "stage": boot.stage.value,
        "reached": {stage.value: at for stage, at in boot.reached.items()},
        "address": str(boot.address) if boot.address else None,
    }


def from_json(record: dict[str, Any]) -> Boot:
    """The boot that `to_json` wrote."""
    known = record | {
        "mac": Mac(record["mac"]),
        "stage": Stage(record["stage"]),
        "reached": {Stage(stage): at for stage, at in record["reached"].items()},
        "address": IPv4Address(record["address"]) if record["address"] else None,
        "transfers": tuple(record.get("transfers", ())),
    }
    return Boot(**known)
