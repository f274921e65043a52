"""A real `pxeboot serve` as the director of a rack, its nodes as their agents, and a client that counts."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pxeboot.cli.client import ask
from pxeboot.errors import PxebootError
from pxeboot.image.library import Library
from pxeboot.lab import network
from tests.balancer.rack import DIRECTOR, Node, Rack, get, rack
from tests.parts import put_image
from tests.serving import wait_for

VIP = "10.77.0.10"
INTERVAL, FALL = 0.5, 2
CONFIG = f"""
[server]
state_dir = "STATE"

[[network]]
interface = "eth0"
subnet = "10.77.0.0/24"

[[group]]
name = "web"
image = "web"
match = ["52:54:00:77:*"]

[[service]]
name = "www"
vip = "{VIP}"
port = 80
group = "web"
scheduler = "rr"
check = {{ kind = "http", path = "/health", interval_seconds = {INTERVAL}, timeout_seconds = {INTERVAL}, rise = 1, fall = {FALL} }}
drain_seconds = 20
"""  # noqa: E501
BEAT_SECONDS = 5.0


class Agent:
    """What stands for a node's boot and its agent: the endpoints it uses, from its own address."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._token = ""
        self._alive = False
        self._thread: threading.Thread | None = None

    def boot(self) -> None:
        """From asking for the script to `ready`, and heartbeats from then on, until `die`."""
        script = self._node.run(lambda: _http(f"http://{DIRECTOR}/ipxe/{self._node.mac}")).decode()
        found = re.search(r"/boot/([^/ ]+)/kernel", script)
        assert found is not None, script
        self._token = found[1]
        for stage in ("network", "image", "root", "ready"):
            self._report(stage)
        if not self._alive:
            self._alive = True
            self._thread = threading.Thread(target=self._beat, daemon=True)
            self._thread.start()

    def begin_to_boot(self) -> None:
        """Ask for a script: the machine has been restarted."""
        self._node.run(lambda: _http(f"http://{DIRECTOR}/ipxe/{self._node.mac}"))

    def die(self) -> None:
        self._alive = False

    def _beat(self) -> None:
        while self._alive:
            time.sleep(BEAT_SECONDS)
            with contextlib.suppress(OSError):  # the server is restarted now and then
                self._report("ready")

    def _report(self, stage: str) -> None:
        url = f"http://{DIRECTOR}/boot/{self._token}/event"
        self._node.run(lambda: _http(url, json.dumps({"stage": stage}).encode()))


def _http(url: str, body: bytes | None = None) -> bytes:
    try:
        with urllib.request.urlopen(url, body, timeout=5) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        error.close()
        raise


@dataclass
class Load:
    """Requests without a pause, from the far client; every one is counted."""

    good: Counter[int] = field(default_factory=Counter)
    """By the node that answered."""
    failed: list[tuple[float, str]] = field(default_factory=list)
    """When each began, monotonic seconds, and how it ended."""
    _running: bool = True

    def run(self, path: str, pause: float) -> None:
        while self._running:
            begun = time.monotonic()
            try:
                self.good[get(VIP, 80, path, seconds=3.0)] += 1
            except (OSError, ValueError) as error:
                self.failed.append((begun, f"{type(error).__name__}: {error}"))
            time.sleep(pause)


@contextlib.contextmanager
def load(built: Rack, clients: int = 4) -> Iterator[Load]:
    """So many clients that ask again and again, and one whose requests take a second each."""
    made = Load()
    paths = [("/", 0.005)] * clients + [("/slow", 0.0)]
    threads = [
        threading.Thread(target=lambda path=path, pause=pause: network.in_namespace(
            built.far, lambda: made.run(path, pause)), daemon=True)
        for path, pause in paths
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        made._running = False
        for thread in threads:
            thread.join(10)


@dataclass
class Cluster:
    """The rack, its server and its nodes' agents."""

    rack: Rack
    state_dir: Path
    agents: dict[int, Agent] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def log(self) -> str:
        return (self.state_dir / "log").read_text()

    def start(self) -> None:
        config = self.state_dir / "pxeboot.toml"
        command = [sys.executable, "-m", "pxeboot.cli.main", "serve", "-c", str(config)]
        with (self.state_dir / "log").open("ab") as log:
            self.process = self.rack.in_director(lambda: subprocess.Popen(command, stdout=log, stderr=log))
        wait_for(self._answers, 40)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(10)

    def reread(self, text: str) -> None:
        """Another configuration, by SIGHUP."""
        assert self.process is not None
        (self.state_dir / "pxeboot.toml").write_text(text.replace("STATE", str(self.state_dir)))
        self.process.send_signal(signal.SIGHUP)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        with contextlib.suppress(PxebootError):
            self.ask("GET", "/status")
            return True
        return False

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return ask(self.state_dir, method, path, body)

    def cli(self, *arguments: str) -> str:
        """The `pxeboot` command on the director."""
        command = [sys.executable, "-m", "pxeboot.cli.main", *arguments, "-c",
                   str(self.state_dir / "pxeboot.toml")]  # fmt: skip
        done = self.rack.in_director(
            lambda: subprocess.run(command, timeout=60, capture_output=True, text=True, check=False)
        )
        return done.stdout + done.stderr

    def boot(self, *numbers: int) -> None:
        """Have nodes boot and answer HTTP; they are in service when it returns."""
        for number in numbers:
            node = self.rack.nodes[number - 1]
            self.ask("PATCH", f"/nodes/{node.mac}", {"name": f"web{number}"})
            node.hush()
            node.listen()
            self.agents.setdefault(number, Agent(node)).boot()
        self.wait_for_states(dict.fromkeys(numbers, "serving"))

    def states(self) -> dict[int, str]:
        """Of each node in the service."""
        servers = self.ask("GET", "/services/www")["servers"]
        return {int(item["mac"][-2:], 16): item["state"] for item in servers if item["mac"]}

    def wait_for_states(self, wanted: dict[int, str], seconds: float = 30) -> None:
        wait_for(lambda: wanted.items() <= self.states().items(), seconds)

    def stage(self, number: int) -> str:
        """Of the node's boot."""
        return str(self.ask("GET", f"/nodes/{self.rack.nodes[number - 1].mac}")["stage"])


@contextlib.contextmanager
def cluster(nodes: int, state_dir: Path, text: str = CONFIG) -> Iterator[Cluster]:
    """A server that runs, with nodes that are off."""
    put_image(Library(state_dir / "images"))
    (state_dir / "pxeboot.toml").write_text(text.replace("STATE", str(state_dir)))
    with rack(nodes) as built:
        made = Cluster(built, state_dir)
        try:
            made.start()
            yield made
        finally:
            for agent in made.agents.values():
                agent.die()
            if made.process is not None:
                made.process.kill()
                made.process.wait()
