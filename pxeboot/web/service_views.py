"""What operators see of the virtual services: the models of the API, and how they are filled."""

from pydantic import BaseModel, Field

from pxeboot.balancer.roster import Place, Roster, State
from pxeboot.balancer.service import Address, ServiceConfig
from pxeboot.balancer.table import NO_COUNTS, NO_TRAFFIC, Counts, Entry, Traffic
from pxeboot.balancer.target import Outcome
from pxeboot.errors import PxebootError
from pxeboot.mac import Mac

AT_WORK = frozenset({State.SERVING, State.STARTING, State.HELD})


class TrafficView(BaseModel):
    """Totals since the kernel has the entry; rates are per second, by the kernel's average."""

    connections: int = 0
    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    connection_rate: int = 0
    packet_rate_in: int = 0
    packet_rate_out: int = 0
    byte_rate_in: int = 0
    byte_rate_out: int = 0

    @classmethod
    def of(cls, traffic: Traffic) -> "TrafficView":
        """What the kernel counted."""
        return cls(**{name: getattr(traffic, name) for name in cls.model_fields})


class LookView(BaseModel):
    """One look of a health check. `at` is Unix seconds."""

    at: float
    good: bool
    text: str
    seconds: float

    @classmethod
    def of(cls, outcome: Outcome) -> "LookView":
        """How it ended."""
        return cls(at=outcome.at, good=outcome.good, text=outcome.text, seconds=outcome.seconds)


class ServerView(BaseModel):
    """A real server of a service."""

    node: str
    mac: Mac | None = Field(description="null: a sorry server, or one that is no node of ours")
    address: Address | None
    port: int
    state: str
    weight: int
    full_weight: int
    active: int
    inactive: int
    leaves: float | None = Field(description="when it goes, connections or not, Unix seconds")
    passing: bool | None = Field(description="what its check says; null: nothing yet, or there is none")
    passing_since: float | None
    last: LookView | None
    turns: list[LookView] = Field(description="the looks that changed the verdict, oldest first")
    traffic: TrafficView


class ServiceView(BaseModel):
    """A virtual service at a glance."""

    name: str
    vip: Address
    port: int | None
    firewall_mark: int | None
    protocol: str
    forward: str
    scheduler: str
    group: str
    up: bool = Field(description="whether it has its quorum")
    trouble: str = Field(description='why it cannot be in the kernel, and what to do; "" where it can')
    held: bool = Field(description="whether all nodes fail and are kept in service")
    serving: int = Field(description="nodes that get new connections")
    nodes: int
    active: int
    inactive: int
    traffic: TrafficView


class ServiceList(BaseModel):
    """All services of the configuration."""

    services: list[ServiceView]
    cleared: bool = Field(default=False, description="taken down until the configuration is read again")


class ServiceDetail(ServiceView):
    """A virtual service and what stands behind it."""

    servers: list[ServerView]


class DrainRequest(BaseModel, extra="forbid"):
    """Of which service; null: of all."""

    service: str | None = None


class NodeService(BaseModel):
    """A node as a server of one service."""

    service: str
    state: str
    weight: int
    left: int = Field(description="connections it still has")
    leaves: float | None = Field(description="when it goes, connections or not, Unix seconds")


class NodeServices(BaseModel):
    """A node in all its services."""

    node: str
    mac: Mac
    services: list[NodeService]


class Cleared(BaseModel):
    """What was taken out of the kernel."""

    services: list[str]


def service_view(
    config: ServiceConfig, roster: Roster | None, entry: Entry | None, trouble: PxebootError | None
) -> ServiceView:
    """A service as it is now: decided by the last round, counted by the kernel."""
    places = roster.places if roster is not None else ()
    counts = entry.counts.values() if entry is not None else ()
    return ServiceView(
        name=config.name,
        vip=config.vip,
        port=config.port,
        firewall_mark=config.firewall_mark,
        protocol=config.protocol,
        forward=config.forward,
        scheduler=config.scheduler,
        group=config.group,
        up=roster.up if roster is not None else False,
        trouble=f"{trouble}; {trouble.hint}" if trouble is not None else "",
        held=bool(roster.memory.members.held) if roster is not None else False,
        serving=sum(place.state in AT_WORK and place.weight > 0 for place in places),
        nodes=sum(place.mac is not None for place in places),
        active=sum(item.active for item in counts),
        inactive=sum(item.inactive for item in counts),
        traffic=TrafficView.of(entry.traffic if entry is not None else NO_TRAFFIC),
    )


def service_detail(
    config: ServiceConfig, roster: Roster | None, entry: Entry | None, trouble: PxebootError | None
) -> ServiceDetail:
    """A service with its servers."""
    view = service_view(config, roster, entry, trouble)
    places = roster.places if roster is not None else ()
    return ServiceDetail(**view.model_dump(), servers=[_server_view(place, entry) for place in places])


def node_service(config: ServiceConfig, place: Place) -> NodeService:
    """What a node still has to do for a service."""
    return NodeService(
        service=config.name,
        state=place.state.value,
        weight=place.weight,
        left=_left(config, place.counts) if place.listed else 0,
        leaves=place.leaves,
    )


def _left(config: ServiceConfig, counts: Counts) -> int:
    """Connections that a drain waits for: of UDP the kernel calls all inactive."""
    return counts.active if config.protocol == "tcp" else counts.all


def _server_view(place: Place, entry: Entry | None) -> ServerView:
    counts, traffic, health = NO_COUNTS, NO_TRAFFIC, place.health
    if entry is not None and place.address is not None:
        counts = entry.counts.get((place.address, place.port), counts)
        traffic = entry.traffic_of.get((place.address, place.port), traffic)
    decided = health is not None and health.passing is not None
    return ServerView(
        node=place.name,
        mac=place.mac,
        address=place.address,
        port=place.port,
        state=_told(place),
        weight=place.weight,
        full_weight=place.full,
        active=counts.active,
        inactive=counts.inactive,
        leaves=place.leaves,
        passing=health.passing if health is not None else None,
        passing_since=health.since if health is not None and decided else None,
        last=LookView.of(health.last) if health is not None and health.last is not None else None,
        turns=[LookView.of(turn) for turn in health.turns] if health is not None else [],
        traffic=TrafficView.of(traffic),
    )


def _told(place: Place) -> str:
    """The state; of a node that is not up, where its boot is."""
    if place.state is State.ABSENT and place.stage is not None:
        return place.stage.value
    return place.state.value
