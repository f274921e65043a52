"""Nodes come, go, are drained and die under load, and the server is restarted: what clients notice of it."""

import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.balancer.cluster import CONFIG, FALL, INTERVAL, LIMIT_SECONDS, VIP, Cluster, cluster, load
from tests.balancer.rack import get
from tests.serving import wait_for

pytestmark = [
    pytest.mark.ipvs,
    pytest.mark.boot,
    pytest.mark.timeout(240),
    # The nodes' servers are closed under the hands of their threads.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

FIRST, LATER = tuple(range(1, 6)), tuple(range(6, 16))
DRAINED = (1, 2, 3, 4, 5)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(len(FIRST) + len(LATER), tmp_path_factory.mktemp("state")) as made:
        made.boot(*FIRST)
        yield made


def test_no_request_fails_while_nodes_come_and_go_and_the_server_is_restarted(running: Cluster) -> None:
    with load(running.rack) as seen:
        time.sleep(1)
        running.boot(*LATER)
        for number in DRAINED:
            told = running.ask("POST", f"/nodes/{running.rack.nodes[number - 1].mac}/drain", {})
            assert told["services"][0]["weight"] == 0
        running.stop(signal.SIGTERM)
        time.sleep(1)
        running.start()
        running.wait_for_states(dict.fromkeys(DRAINED, "drained"))
        assert running.stage(1) == "draining"
        before = {number: seen.good[number] for number in DRAINED}
        running.stop(signal.SIGKILL)
        time.sleep(1)
        running.start()
        running.wait_for_states(dict.fromkeys(LATER, "serving"))
        time.sleep(2)
        after = {number: seen.good[number] for number in DRAINED}
    assert seen.failed == []
    assert before == after  # a drained node stays drained, whatever happens to the server
    assert all(seen.good[number] for number in LATER)
    print(f"{seen.good.total()} requests, none failed")


def test_an_undrained_node_serves_again(running: Cluster) -> None:
    for number in DRAINED:
        running.ask("POST", f"/nodes/{running.rack.nodes[number - 1].mac}/undrain", {})
    running.wait_for_states(dict.fromkeys(DRAINED, "serving"))
    assert running.stage(1) == "serving"


def test_a_node_that_dies_is_missed_for_a_moment_only(running: Cluster) -> None:
    """Failed requests end within interval times fall and a second: until then it gets its share."""
    victim = running.rack.nodes[14]
    with load(running.rack, seconds=1.0) as seen:
        wait_for(lambda: seen.good[victim.number], LIMIT_SECONDS)
        dead, before = time.monotonic(), seen.good.total()
        victim.unplug()
        running.agents[victim.number].die()
        time.sleep(INTERVAL * FALL + 4)
    begun = [at - dead for at, _ in seen.failed]
    assert seen.failed, seen.good  # it was asked while it was dead
    assert max(begun) < INTERVAL * FALL + 1, seen.failed
    assert running.states()[victim.number] == "failing"
    during = f"{len(begun)} of {seen.good.total() - before + len(begun)}"
    print(f"{during} requests failed, begun up to {max(begun):.2f} s after the node died")


def test_a_node_that_asks_to_boot_again_leaves_at_once_and_comes_back_by_itself(running: Cluster) -> None:
    victim = running.rack.nodes[0]
    victim.hush()
    running.agents[1].begin_to_boot()
    running.wait_for_states({1: "script"})
    assert str(victim.address) not in _ipvsadm(running)
    running.boot(1)
    assert running.stage(1) == "serving"


def test_what_others_change_in_the_kernel_is_put_right_again(running: Cluster) -> None:
    address = running.rack.nodes[1].address
    running.rack.in_director(
        lambda: subprocess.run(("ipvsadm", "-d", "-t", f"{VIP}:80", "-r", address), check=True)
    )
    begun = time.monotonic()
    assert address not in _ipvsadm(running)
    wait_for(lambda: address in _ipvsadm(running), LIMIT_SECONDS)
    print(f"put right within {time.monotonic() - begun:.1f} s")


def test_operators_see_and_say_it_all(running: Cluster) -> None:
    listed = running.cli("service", "list")
    assert "www" in listed
    assert f"{VIP}:80/tcp" in listed
    assert "passes: " in running.cli("service", "show", "www")
    name = running.ask("GET", f"/nodes/{running.rack.nodes[2].mac}")["name"]
    assert f"{name}: drain" in running.cli("service", "drain", name, "--wait")
    assert f"{name}: serving in www" in running.cli("service", "undrain", name)
    assert "service www: " in running.cli("status")
    assert "there is no node 'nobody'" in running.cli("service", "drain", "nobody")
    assert "there is no service 'ftp'" in running.cli("service", "show", "ftp")


def test_a_service_of_another_and_one_that_is_no_longer_ours(running: Cluster) -> None:
    running.rack.in_director(lambda: subprocess.run(("ipvsadm", "-A", "-t", "10.77.0.1:8888"), check=True))
    more = CONFIG + f'[[service]]\nname = "alt"\nvip = "{VIP}"\nport = 8080\nreal_port = 80\ngroup = "web"\n'
    running.reread(more)
    wait_for(lambda: f"{VIP}:8080" in _ipvsadm(running), LIMIT_SECONDS)
    running.reread(CONFIG)
    wait_for(lambda: f"{VIP}:8080" not in _ipvsadm(running), LIMIT_SECONDS)
    assert "10.77.0.1:8888" in _ipvsadm(running)
    assert running.rack.ask(running.rack.far, VIP, 1)  # the address stays, for the other service has it


def test_without_its_quorum_the_sorry_server_answers(running: Cluster) -> None:
    """Of the nodes one is dead: with another one drained the quorum is lost."""
    few = f'''[[service]]\nname = "few"\nvip = "{VIP}"\nport = 8081\nreal_port = 80\ngroup = "web"
scheduler = "rr"\nquorum = {len(FIRST) + len(LATER) - 1}
sorry_server = {{ address = "{running.sorry.address}", port = 80 }}'''
    running.sorry.listen()
    running.reread(CONFIG + few)
    running.wait_for_service("few", up=True)
    assert running.sorry.number not in running.rack.ask(running.rack.far, VIP, 5, 8081)
    running.cli("service", "drain", "web3", "--service", "few")
    running.wait_for_service("few", up=False)
    assert running.rack.ask(running.rack.far, VIP, 5, 8081) == [running.sorry.number] * 5
    assert "no quorum" in running.cli("service", "list")
    running.cli("service", "undrain", "web3", "--service", "few")
    running.wait_for_service("few", up=True)
    assert running.sorry.number not in running.rack.ask(running.rack.far, VIP, 5, 8081)
    running.reread(CONFIG)


def test_the_services_stay_when_the_server_ends_and_go_when_asked(running: Cluster) -> None:
    running.stop(signal.SIGTERM)
    assert len(running.rack.ask(running.rack.far, VIP, 3)) == 3
    assert f"service tcp {VIP} 80 is out of the kernel" in running.cli("service", "clear")
    assert _ipvsadm(running).count("TCP") == 1  # the other's
    with pytest.raises(OSError):
        running.rack.in_director(lambda: get(VIP, 80, seconds=1.0))
    assert "nothing of ours was in the kernel" in running.cli("service", "clear")


def test_a_cleared_service_is_there_again_when_the_configuration_is_reread(running: Cluster) -> None:
    running.start()
    wait_for(lambda: f"{VIP}:80" in _ipvsadm(running), LIMIT_SECONDS)
    assert f"service tcp {VIP} 80 is out of the kernel" in running.cli("service", "clear")
    time.sleep(2.5)
    assert f"{VIP}:80" not in _ipvsadm(running)
    assert running.stage(2) == "ready"
    running.reread(CONFIG)
    running.wait_for_states({2: "serving"})


def _ipvsadm(running: Cluster) -> str:
    command = ("ipvsadm", "-L", "-n")
    done = running.rack.in_director(
        lambda: subprocess.run(command, capture_output=True, text=True, check=True)
    )
    return done.stdout


def test_nothing_in_all_this_was_a_bug_of_ours(running: Cluster) -> None:
    assert "Traceback" not in running.log
