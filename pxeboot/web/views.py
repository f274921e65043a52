"""What operators see of nodes, leases and boots: the models of the API, and how they are filled."""

import time
from base64 import b64decode
from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from pxeboot.inventory.boot import Boot, Stage
from pxeboot.inventory.lease import Lease, LeaseState
from pxeboot.inventory.node import Node, group_of, is_known
from pxeboot.inventory.overlay import Laid, Variable
from pxeboot.inventory.store import Store
from pxeboot.mac import Mac
from pxeboot.site import Site
from pxeboot.web.service_views import ServiceView
from pxeboot.words import Inside, Name


class EntryFault(BaseModel):
    """Why an entry of a list was refused; `entry` counts from 0, `key` is the setting, if it is one's."""

    entry: int
    key: str
    error: str
    hint: str


class Problem(BaseModel):
    """Why a request was refused, and what to do."""

    error: str
    hint: str = ""
    faults: list[EntryFault] = []
    """Of a list: all that is wrong with its entries."""


class NodeView(BaseModel):
    """A node and where its present boot is. Times are Unix seconds; `done` and `total` are bytes."""

    mac: Mac
    name: str
    uuid: UUID | None = None
    group: str | None = None
    """The group it belongs to, by its own setting or by the configuration's patterns."""
    reserved: IPv4Address | None = None
    options: dict[str, Any] = {}
    """DHCP options for it alone, as the operator wrote them."""
    vars: dict[str, str] = {}
    """Words for templates, for it alone."""
    files: dict[str, int] = {}
    """Sizes of its own files, bytes, by path in its root; contents are told to the node only."""
    ssh_host_key: str = ""
    """The public half of its host key, once it has booted, as it stands in known_hosts(5)."""
    by_uuid: bool = False
    """The operator named it by its UUID; its MAC address is that of the card that asked last."""
    discovered: bool = False
    """It is held with a temporary address until an operator speaks of it."""
    address: IPv4Address | None = None
    stage: str | None = None
    """None: it has never asked to boot."""
    stage_since: float | None = None
    heard: float | None = None
    detail: str = ""
    done: int = 0
    total: int = 0
    failure: str = ""
    image: str = ""


class NodeList(BaseModel):
    nodes: list[NodeView]


class BootView(BaseModel):
    """One boot attempt. `reached` has the time of each stage, in order."""

    id: str
    started: float
    stage: str
    reached: dict[str, float]
    firmware: str
    loader: str
    image: str
    address: IPv4Address | None
    retries: int
    sent: dict[str, int]
    """Bytes by protocol and name."""
    transfers: list[dict[str, Any]]
    """The last reads by TFTP: name, options asked and granted, bytes, retransmissions, seconds, result."""
    failure_class: str
    failure: str


class NodeDetail(NodeView):
    boots: list[BootView]
    """Newest first."""


def machine_uuid(uuid: UUID) -> UUID:
    """Refuse what boards without a UUID of their own tell. Raises ValueError."""
    if uuid.int in (0, (1 << 128) - 1):
        raise ValueError(f"{uuid} is what boards tell that have none")
    return uuid


MachineUuid = Annotated[UUID, AfterValidator(machine_uuid)]


def _base64(text: object) -> object:
    """Raises ValueError; pydantic's own takes any text."""
    return b64decode(text, validate=True) if isinstance(text, str) else text


class FilePatch(Laid, frozen=True, extra="forbid"):
    """A file of one node, and how it lies in the root."""

    data: Annotated[bytes, BeforeValidator(_base64)]
    """In base64 (RFC 4648 §4)."""


class NodePatch(BaseModel, extra="forbid"):
    """What to change; null takes a setting back."""

    name: Name = ""
    group: str | None = None
    address: IPv4Address | None = None
    uuid: MachineUuid | None = None
    options: dict[str, Any] = {}
    """DHCP options by name or number; null takes one back, those not named stay."""
    vars: dict[Variable, str | None] = {}
    """Words for templates; null takes one back, those not named stay."""
    files: dict[Inside, FilePatch | None] = {}
    """Files laid over its root; null takes one back, those not named stay."""


class NodeEntry(NodePatch):
    """One node of a list: by its MAC address, or by the UUID alone. What is not said stays as it is."""

    mac: Mac | None = None

    @model_validator(mode="after")
    def _is_somebody(self) -> Self:
        if self.mac is None and self.uuid is None:
            raise ValueError("neither mac nor uuid says which machine it is")
        return self


class NodeImport(BaseModel, extra="forbid"):
    """Nodes to set, all or none."""

    nodes: list[NodeEntry]


class ImportResult(BaseModel):
    """How many nodes are new, how many have changed, and how many were so already."""

    added: int
    changed: int
    unchanged: int


class CommandRequest(BaseModel, extra="forbid"):
    """What the node's agent shall do."""

    command: Literal["reboot", "poweroff"]


class LeaseView(BaseModel):
    """An address and whose it is; in state `conflict`, `mac` is who answers for it without a lease."""

    address: IPv4Address
    mac: Mac
    name: str = ""
    """The node's, where `mac` is one."""
    state: str
    """`offered`, `bound`, `released`, `declined`, `conflict`, or `expired`: its time is over."""
    expires: float


class LeaseList(BaseModel):
    leases: list[LeaseView]


class NetworkStatus(BaseModel):
    """A network and how full its pool is."""

    subnet: str
    interface: str | None
    address: IPv4Address | None
    pool_size: int
    leases_active: int
    requests_dropped: int = Field(
        description="DHCP requests since the server's start that came faster than they can be answered"
    )


class Status(BaseModel):
    """The server at a glance."""

    networks: list[NetworkStatus]
    nodes_by_stage: dict[str, int] = Field(description="in the order of a boot; only stages that have nodes")
    services: list[ServiceView]
    failures: list[NodeView] = Field(description="nodes that have failed or are lost")
    quarantined: list[LeaseView] = Field(description="addresses that somebody has without a lease of ours")


async def node_view(node: Node, site: Site, store: Store) -> NodeView:
    """A node as operators see it now."""
    group = group_of(node, site.config)
    boot = await store.boot(node.mac)
    view = NodeView(
        mac=node.mac,
        name=node.name,
        uuid=node.uuid,
        group=group.name if group else node.group,
        reserved=node.address,
        options=dict(node.options),
        vars=dict(node.overlay.vars),
        files={path: len(file.data) for path, file in node.overlay.files.items()},
        ssh_host_key=node.overlay.lasting.ssh_host_public if node.overlay.lasting else "",
        by_uuid=node.by_uuid,
        discovered=site.config.server.unknown == "hold" and not is_known(node, site.config),
        address=await _lease_address(node.mac, site, store),
    )
    if boot is None:
        return view
    if view.address is None and boot.address is not None and _is_elsewhere(boot.address, site):
        view = view.model_copy(update={"address": boot.address})
    return view.model_copy(
        update={
            "stage": boot.stage.value,
            "stage_since": boot.reached.get(boot.stage, boot.started),
            "heard": boot.heard,
            "detail": boot.detail,
            "done": boot.done,
            "total": boot.total,
            "failure": boot.failure,
            "image": boot.image,
        }
    )


def _is_elsewhere(address: IPv4Address, site: Site) -> bool:
    """Whether another server gives such addresses, so that no lease of ours tells when one ends."""
    network = site.network_of(address)
    return network is not None and network.config.mode == "proxy"


async def _lease_address(mac: Mac, site: Site, store: Store) -> IPv4Address | None:
    now = time.time()
    for network in site.leasing:
        lease = await store.lease_of(network.config.subnet, mac)
        if lease is not None and lease.active(now):
            return lease.address
    return None


async def node_detail(node: Node, site: Site, store: Store) -> NodeDetail:
    """A node with its last boots."""
    view = await node_view(node, site, store)
    boots = [_boot_view(boot) for boot in await store.boots(node.mac)]
    return NodeDetail(**view.model_dump(), boots=boots)


def _boot_view(boot: Boot) -> BootView:
    return BootView(
        id=boot.id,
        started=boot.started,
        stage=boot.stage.value,
        reached={stage.value: at for stage, at in boot.reached.items()},
        firmware=boot.firmware,
        loader=boot.loader,
        image=boot.image,
        address=boot.address,
        retries=boot.retries,
        sent=boot.sent,
        transfers=list(boot.transfers),
        failure_class=boot.failure_class,
        failure=boot.failure,
    )


async def lease_list(store: Store) -> LeaseList:
    """All leases, by address."""
    now, names = time.time(), await _names(store)
    return LeaseList(leases=[_lease_view(lease, names, now) for lease in await store.leases()])


async def _names(store: Store) -> dict[Mac, str]:
    return {node.mac: node.name for node in await store.nodes()}


def _lease_view(lease: Lease, names: Mapping[Mac, str], now: float) -> LeaseView:
    over = lease.state is not LeaseState.RELEASED and now >= lease.expires
    return LeaseView(
        address=lease.address,
        mac=lease.mac,
        name=names.get(lease.mac, ""),
        state="expired" if over else lease.state.value,
        expires=lease.expires,
    )


async def status_of(
    site: Site, store: Store, dropped: Mapping[str, int], services: list[ServiceView]
) -> Status:
    """Count leases and nodes. `dropped`: DHCP requests not answered, by interface."""
    now, names = time.time(), await _names(store)
    leases = await store.leases()
    active = [lease.address for lease in leases if lease.active(now)]
    networks = [
        NetworkStatus(
            subnet=str(network.config.subnet),
            interface=network.config.interface,
            address=network.address,
            pool_size=sum(len(item) for item in network.config.pool),
            leases_active=sum(address in network.config.subnet for address in active),
            requests_dropped=dropped.get(network.config.interface or "", 0),
        )
        for network in site.networks
    ]
    views = [await node_view(node, site, store) for node in await store.nodes()]
    stages = [stage.value for stage in Stage]
    counts = {stage: sum(view.stage == stage for view in views) for stage in stages}
    return Status(
        networks=networks,
        nodes_by_stage={stage: count for stage, count in counts.items() if count},
        services=services,
        failures=[view for view in views if view.stage in (Stage.FAILED.value, Stage.LOST.value)],
        quarantined=[_lease_view(lease, names, now) for lease in leases if lease.quarantined(now)],
    )
