"""Who stands behind a service: rounds by hand, with the kernel's table and the time given."""

from dataclasses import replace
from ipaddress import IPv4Address, ip_address

import pytest

from pxeboot.balancer.roster import (
    HALF_OPEN_SECONDS,
    Memory,
    Peer,
    Roster,
    State,
    address_in,
    begin,
    muster,
)
from pxeboot.balancer.service import ServiceConfig
from pxeboot.balancer.table import Counts, Entry, Real, RealId
from pxeboot.balancer.target import Health
from pxeboot.inventory.boot import Stage
from pxeboot.mac import Mac

NOW = 1000.0
GOOD, BAD, UNDECIDED = Health(True), Health(False), Health()


def config(**keys: object) -> ServiceConfig:
    return ServiceConfig.model_validate(
        {"name": "www", "vip": "10.0.0.1", "port": 80, "group": "web", **keys}
    )


def peer(
    number: int, health: Health | None = GOOD, stage: Stage | None = Stage.READY, drained: float | None = None
) -> Peer:
    mac = Mac(f"52:54:00:00:00:{number:02x}")
    return Peer(mac, f"web{number}", IPv4Address(f"10.77.0.{number}"), stage, drained, health)


class Kernel:
    """Keeps what the last round wanted, and counts connections as told."""

    def __init__(self, service: ServiceConfig) -> None:
        self.service = service
        self.entry: Entry | None = None
        self.memory: Memory | None = None

    def round(self, *peers: Peer, now: float = NOW) -> Roster:
        memory = self.memory or begin(self.service, peers, self.entry)
        roster = muster(self.service, peers, self.entry, memory, now)
        self.memory = roster.memory
        counts = self.entry.counts if self.entry is not None else {}
        self.entry = replace(
            roster.wanted, counts={name: counts.get(name, Counts()) for name in roster.wanted.reals}
        )
        return roster

    def connections(self, number: int, active: int = 0, inactive: int = 0) -> None:
        assert self.entry is not None
        self.entry = replace(
            self.entry, counts={**self.entry.counts, self.name(number): Counts(active, inactive)}
        )

    def restart(self) -> None:
        """Another process: nothing is remembered but what the kernel has."""
        self.memory = None

    def name(self, number: int) -> RealId:
        return IPv4Address(f"10.77.0.{number}"), self.service.node_port

    @property
    def weights(self) -> dict[int, int]:
        assert self.entry is not None
        return {
            int(str(address).rpartition(".")[2]): real.weight
            for (address, _), real in self.entry.reals.items()
        }


def states(roster: Roster) -> dict[str, State]:
    return {place.name: place.state for place in roster.places}


def test_who_is_ready_and_passes_serves_and_others_do_not() -> None:
    kernel = Kernel(config())
    roster = kernel.round(
        peer(1), peer(2, UNDECIDED), peer(3, BAD), peer(4, stage=Stage.IMAGE), peer(5, stage=None)
    )
    assert kernel.weights == {1: 100}
    assert states(roster) == {
        "web1": State.SERVING, "web2": State.CHECKING, "web3": State.FAILING, "web4": State.ABSENT,
        "web5": State.ABSENT,
    }  # fmt: skip


def test_a_service_without_a_check_takes_who_is_ready() -> None:
    kernel = Kernel(config(port=53, protocol="udp"))
    kernel.round(peer(1, None), peer(2, None, Stage.SERVING), peer(3, None, Stage.DRAINING))
    assert set(kernel.weights) == {1, 2, 3}


def test_weights_are_by_name_or_mac() -> None:
    kernel = Kernel(config(weight=10, weights={"web1": 20, "52:54:00:00:00:02": 0}))
    kernel.round(peer(1), peer(2), peer(3))
    assert kernel.weights == {1: 20, 2: 0, 3: 10}


def test_after_a_restart_everybody_stays_until_the_check_has_spoken() -> None:
    kernel = Kernel(config())
    kernel.round(peer(1), peer(2))
    kernel.restart()
    kernel.round(peer(1, UNDECIDED), peer(2, UNDECIDED), peer(3, UNDECIDED))
    assert kernel.weights == {1: 100, 2: 100}
    kernel.round(peer(1), peer(2, BAD), peer(3))
    assert kernel.weights == {1: 100, 2: 0, 3: 100}


def test_after_a_restart_a_quiesced_server_stays_quiesced() -> None:
    kernel = Kernel(config())
    kernel.round(peer(1), peer(2))
    kernel.round(peer(1), peer(2, BAD))
    kernel.restart()
    kernel.round(peer(1, UNDECIDED), peer(2, UNDECIDED))
    assert kernel.weights == {1: 100, 2: 0}


def test_a_failing_server_is_removed_where_that_is_wanted() -> None:
    kernel = Kernel(config(on_failure="remove"))
    kernel.round(peer(1), peer(2))
    kernel.connections(2, active=7)
    kernel.round(peer(1), peer(2, BAD))
    assert kernel.weights == {1: 100}


def test_a_drained_server_finishes_its_connections_before_it_goes() -> None:
    kernel = Kernel(config(drain_seconds=30))
    kernel.round(peer(1), peer(2))
    leaver = peer(2, drained=NOW)
    kernel.connections(2, active=2, inactive=5)
    for after, weights in ((0.0, {1: 100, 2: 0}), (10.0, {1: 100, 2: 0})):
        roster = kernel.round(peer(1), leaver, now=NOW + after)
        assert (kernel.weights, states(roster)["web2"]) == (weights, State.DRAINING)
        kernel.connections(2, active=1, inactive=6)
    (place,) = [place for place in roster.places if place.name == "web2"]
    assert place.leaves == NOW + 30
    kernel.connections(2, inactive=7)
    roster = kernel.round(peer(1), leaver, now=NOW + 12)
    assert (kernel.weights, states(roster)["web2"]) == ({1: 100}, State.DRAINED)
    kernel.restart()
    kernel.round(peer(1), leaver, now=NOW + 13)
    assert kernel.weights == {1: 100}


def test_a_connection_that_is_half_open_is_waited_for() -> None:
    kernel = Kernel(config())
    kernel.round(peer(1), peer(2))
    leaver = peer(2, drained=NOW)
    kernel.connections(2, inactive=1)
    kernel.round(peer(1), leaver)
    kernel.round(peer(1), leaver, now=NOW + HALF_OPEN_SECONDS - 0.1)
    assert kernel.weights == {1: 100, 2: 0}
    kernel.round(peer(1), leaver, now=NOW + HALF_OPEN_SECONDS)
    assert kernel.weights == {1: 100}


def test_weight_0_comes_before_removal_even_of_an_idle_server() -> None:
    kernel = Kernel(config(drain_seconds=0))
    kernel.round(peer(1), peer(2))
    kernel.round(peer(1), peer(2, drained=NOW - 500))
    assert kernel.weights == {1: 100, 2: 0}
    kernel.round(peer(1), peer(2, drained=NOW - 500))
    assert kernel.weights == {1: 100}


def test_a_drain_ends_when_its_time_is_over() -> None:
    kernel = Kernel(config(drain_seconds=30))
    kernel.round(peer(1), peer(2))
    leaver = peer(2, drained=NOW)
    kernel.connections(2, active=3)
    kernel.round(peer(1), leaver, now=NOW + 29)
    kernel.connections(2, active=3)
    kernel.round(peer(1), leaver, now=NOW + 30)
    assert kernel.weights == {1: 100}


def test_datagrams_are_waited_for_though_the_kernel_calls_them_inactive() -> None:
    kernel = Kernel(config(port=53, protocol="udp"))
    kernel.round(peer(1, None), peer(2, None))
    leaver = peer(2, None, drained=NOW)
    kernel.round(peer(1, None), leaver)
    kernel.connections(2, inactive=1)
    kernel.round(peer(1, None), leaver, now=NOW + 20)
    assert kernel.weights == {1: 100, 2: 0}
    kernel.connections(2)
    kernel.round(peer(1, None), leaver, now=NOW + 21)
    assert kernel.weights == {1: 100}


def test_an_undrained_server_has_its_weight_again() -> None:
    kernel = Kernel(config())
    kernel.round(peer(1), peer(2))
    kernel.connections(2, active=1)
    kernel.round(peer(1), peer(2, drained=NOW))
    roster = kernel.round(peer(1), peer(2), now=NOW + 5)
    assert (kernel.weights, states(roster)["web2"]) == ({1: 100, 2: 100}, State.SERVING)


@pytest.mark.parametrize("stage", [Stage.DISCOVER, Stage.ADDRESS, Stage.IMAGE, Stage.FAILED, None])
def test_a_machine_that_boots_again_is_out_at_once(stage: Stage | None) -> None:
    kernel = Kernel(config())
    kernel.round(peer(1), peer(2))
    kernel.connections(2, active=9)
    kernel.round(peer(1), peer(2, stage=stage))
    assert kernel.weights == {1: 100}


@pytest.mark.parametrize(("stage", "state"), [(Stage.LOST, State.LOST), (Stage.REBOOTING, State.LEAVING)])
def test_a_machine_that_may_still_answer_gets_nothing_new_and_finishes(stage: Stage, state: State) -> None:
    kernel = Kernel(config(drain_seconds=30))
    kernel.round(peer(1), peer(2))
    kernel.connections(2, active=1)
    roster = kernel.round(peer(1), peer(2, stage=stage))
    assert (kernel.weights, states(roster)["web2"]) == ({1: 100, 2: 0}, state)
    kernel.connections(2, active=1)
    kernel.round(peer(1), peer(2, stage=stage), now=NOW + 31)
    assert kernel.weights == {1: 100}


def test_a_server_nobody_knows_leaves_in_the_same_two_steps() -> None:
    kernel = Kernel(config())
    kernel.round(peer(1))
    assert kernel.entry is not None
    stranger = Real(IPv4Address("10.77.0.66"), 80, "dr", 50)
    kernel.entry = replace(kernel.entry, reals={**kernel.entry.reals, stranger.id: stranger})
    roster = kernel.round(peer(1))
    assert (kernel.weights, states(roster)["10.77.0.66"]) == ({1: 100, 66: 0}, State.LEAVING)
    kernel.round(peer(1), now=NOW + 1)
    assert kernel.weights == {1: 100}


def test_a_machine_with_another_address_is_another_server() -> None:
    kernel = Kernel(config())
    kernel.round(peer(1))
    kernel.round(replace(peer(1), address=IPv4Address("10.77.0.9")))
    assert kernel.weights == {9: 100, 1: 0}


def test_of_two_machines_with_one_address_the_one_that_is_up_has_it() -> None:
    kernel = Kernel(config())
    old = replace(peer(2, stage=Stage.LOST), address=IPv4Address("10.77.0.1"))
    roster = kernel.round(peer(1), old)
    assert kernel.weights == {1: 100}
    assert states(roster)["web2"] is State.LOST


def test_a_newcomer_starts_with_a_part_of_its_weight() -> None:
    kernel = Kernel(config(slow_start_seconds=10))
    kernel.round(peer(1))
    shares = []
    for after in (0.0, 2.5, 5.0, 9.9, 10.0):
        roster = kernel.round(peer(1), now=NOW + after)
        shares.append((kernel.weights[1], states(roster)["web1"]))
    assert shares == [
        (1, State.STARTING), (20, State.STARTING), (50, State.STARTING), (90, State.STARTING),
        (100, State.SERVING),
    ]  # fmt: skip


def test_when_all_fail_at_once_they_are_kept() -> None:
    kernel = Kernel(config())
    kernel.round(peer(1), peer(2))
    roster = kernel.round(peer(1, BAD), peer(2, BAD), now=NOW + 3)
    assert (kernel.weights, states(roster)["web1"]) == ({1: 100, 2: 100}, State.HELD)


def test_without_a_quorum_the_sorry_server_answers_and_then_leaves() -> None:
    kernel = Kernel(config(quorum=2, sorry_server={"address": "10.77.0.99", "port": 8080}))
    assert states(kernel.round(peer(1, UNDECIDED), peer(2)))["sorry"] is State.SORRY
    assert kernel.weights == {2: 0, 99: 100}
    kernel.connections(99, active=1)
    roster = kernel.round(peer(1), peer(2))
    assert (roster.up, kernel.weights) == (True, {1: 100, 2: 100, 99: 0})
    kernel.connections(99)
    kernel.round(peer(1), peer(2), now=NOW + 6)
    assert kernel.weights == {1: 100, 2: 100}
    roster = kernel.round(peer(1), peer(2, BAD), now=NOW + 7)
    assert (roster.up, kernel.weights) == (False, {1: 0, 2: 0, 99: 100})
    assert states(roster)["web1"] is State.STANDBY


def test_a_service_of_many_ports_keeps_the_port_of_the_packet() -> None:
    kernel = Kernel(config(port=None, firewall_mark=7))
    kernel.round(peer(1, None))
    assert kernel.entry is not None
    assert list(kernel.entry.reals) == [(IPv4Address("10.77.0.1"), 0)]


def test_a_node_of_an_ipv6_service_has_the_address_of_its_card() -> None:
    service = config(vip="fd00::1", node_prefix="fd00:77::/64")
    address = address_in(service, Mac("52:54:00:12:34:56"), IPv4Address("10.77.0.1"))
    assert address == ip_address("fd00:77::5054:ff:fe12:3456")  # RFC 4291 Appendix A: the local bit is turned


def test_who_has_not_set_up_what_the_service_needs_waits_but_is_not_taken_out_for_it() -> None:
    kernel = Kernel(config(forward="dr"))
    bare = replace(peer(1), equipped=False)
    assert states(kernel.round(bare)) == {"web1": State.PREPARING}
    assert kernel.weights == {}
    kernel.round(peer(1))
    kernel.restart()
    kernel.round(bare)
    assert kernel.weights == {1: 100}
