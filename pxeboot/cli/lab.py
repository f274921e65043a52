"""`pxeboot lab`: virtual machines that boot from this very code, on a private network."""

import asyncio
import os
import re
import select
import signal
import socket
import sys
import termios
import time
import tty
from collections.abc import Callable, Mapping
from enum import StrEnum
from html.parser import HTMLParser
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pxeboot.cli.options import ConfigPath, StateDir, state_dir_of
from pxeboot.errors import PxebootError
from pxeboot.lab import network, record
from pxeboot.lab.director import VIP, Forward
from pxeboot.lab.qemu import MEMORY_MB, Firmware, Machine
from pxeboot.lab.scenario import NAME, TIMEOUT_SECONDS, Lab, Loader, Progress, Scenario

app = typer.Typer(
    help="Virtual machines booting from this server, on a private network.", no_args_is_help=True
)

ESCAPE = b"\x1d"  # Ctrl-]
_LOG_TAIL_BYTES = 2000
_MEGABYTE = 1_000_000


class Balanced(StrEnum):
    """What the machines stand behind."""

    NAT = "nat"
    DR = "dr"
    TUN = "tun"
    NONE = "none"


_FORWARDS: Mapping[Balanced, Forward | None] = {
    Balanced.NAT: "nat",
    Balanced.DR: "dr",
    Balanced.TUN: "tun",
    Balanced.NONE: None,
}


@app.command()
def run(
    nodes: Annotated[int, typer.Option(min=1, max=99, help="How many machines.")] = 2,
    firmware: Annotated[Firmware, typer.Option(help="What they start with.")] = Firmware.BIOS,
    image: Annotated[str, typer.Option(help="Tag of the image they boot.")] = "web",
    memory: Annotated[int, typer.Option(min=64, help="RAM of each machine, MB.")] = MEMORY_MB,
    loader: Annotated[Loader, typer.Option(help="What their group boots with.")] = Loader.IPXE,
    service: Annotated[Balanced, typer.Option(help="How a virtual service reaches them.")] = Balanced.NAT,
    proxy: Annotated[bool, typer.Option("--proxy", help="Beside another DHCP server (dnsmasq).")] = False,
    config: ConfigPath = None,
    state_dir: StateDir = None,
    keep: Annotated[bool, typer.Option("--keep", help="Let it run until Ctrl-C.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds until all must be ready.")] = TIMEOUT_SECONDS,
) -> None:
    """Boot machines over the network, show how far they are, and ask the service that they stand behind."""
    scenario = Scenario(
        state_dir=state_dir_of(config, state_dir),
        nodes=nodes,
        firmware=firmware,
        image=image,
        loader=loader,
        proxy=proxy,
        forward=_FORWARDS[service],
        memory_mb=memory,
        timeout_seconds=timeout,
    )
    console = Console()
    lab = Lab(scenario, lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True))
    try:
        asyncio.run(_session(lab, console, keep))
    except asyncio.CancelledError:
        console.print("Interrupted: the lab is gone.")
        raise typer.Exit(1) from None
    console.print(
        f"Everything has been ended; the logs stay in {scenario.folder}", highlight=False, soft_wrap=True
    )


@app.command()
def console(node: Annotated[str, typer.Argument(help="A machine of the lab, like node1.")]) -> None:
    """Attach this terminal to a machine's serial console; Ctrl-] leaves it."""
    machine = _find(node)
    if not sys.stdin.isatty():
        raise PxebootError("the console needs a terminal", f"read its log instead: {machine.console_log}")
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(str(machine.console_socket))
        except OSError as error:
            raise PxebootError(
                f"{node} does not answer: {error}", f"its log: {machine.console_log}"
            ) from error
        typer.echo(f"Console of {node}; leave it with Ctrl-]")
        _show_tail(machine.console_log)
        _raw(lambda: relay(line, sys.stdin.fileno(), sys.stdout.fileno()))
    typer.echo(f"\nLeft the console of {node}.")


@app.command()
def down() -> None:
    """End the lab, or what a crashed one has left: machines, server, network, files but the logs."""
    network.check()
    typer.echo("The lab is gone." if record.down(NAME) else "No lab was up.")


async def _session(lab: Lab, console: Console, keep: bool) -> None:
    """A lab from beginning to end. A signal cancels it, so that everything is taken down on the way out."""
    task = asyncio.current_task()
    assert task is not None
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(sign) is not signal.SIG_IGN:  # nohup
            asyncio.get_running_loop().add_signal_handler(sign, task.cancel)
    async with lab:
        await lab.power_on()
        ready = await _watch(lab, console)
        await _show_pages(lab, ready, console)
        console.print(
            _stage_table({item.machine.name: await lab.stage_seconds(item.machine) for item in ready})
        )
        if lab.scenario.forward is not None:
            await _show_service(lab, console)
        if keep:
            await _stay(lab, console)


async def _watch(lab: Lab, console: Console) -> list[Progress]:
    """Show how far the machines are until all are ready: a live table, or lines without a terminal."""
    progress: list[Progress] = []
    if not console.is_terminal:
        shown: dict[str, str] = {}
        async for progress in lab.follow():
            for line in changed_lines(progress, shown, time.time()):
                console.print(line, highlight=False, markup=False, soft_wrap=True)
        return progress
    with Live(console=console, auto_refresh=False) as live:
        async for progress in lab.follow():
            live.update(_progress_table(progress, time.time()), refresh=True)
    return progress


async def _show_pages(lab: Lab, ready: list[Progress], console: Console) -> None:
    for item in ready:
        assert item.node is not None
        assert item.node.address is not None
        page = page_text(await lab.page(str(item.node.address)))
        console.print(
            f"\n{item.machine.name} serves http://{item.node.address}/", style="bold", highlight=False
        )
        for line in page.splitlines():
            console.print(f"  {line}", highlight=False, markup=False)
    console.print()


async def _show_service(lab: Lab, console: Console) -> None:
    """Ask the virtual address, twice as often as there are machines behind it."""
    console.print(
        f"\nA client asks http://{VIP}/, the address of the service:", style="bold", highlight=False
    )
    for name in await lab.visit(2 * len(lab.machines)):
        console.print(f"  answered by {name}", highlight=False, markup=False)
    console.print()


async def _stay(lab: Lab, console: Console) -> None:
    """Until a signal comes, which is the wished end here."""
    console.print(
        f"The lab stays up. In another terminal: pxeboot lab console {lab.machines[0].name}\n"
        "Ctrl-C here, or pxeboot lab down there, ends it.",
        highlight=False,
    )
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        console.print("\nEnding the lab.")


def changed_lines(progress: list[Progress], shown: dict[str, str], now: float) -> list[str]:
    """One line for each machine whose stage or failure is not what `shown` has; updates `shown`."""
    lines = []
    for item in progress:
        news = item.stage + (f": {item.node.failure}" if item.node and item.node.failure else "")
        if shown.get(item.machine.name) != news:
            shown[item.machine.name] = news
            lines.append(f"{_seconds(item, now):6.1f} s  {item.machine.name}  {news}")
    return lines


def page_text(html: str) -> str:
    """What a reader sees of a simple page: its text, a line for each block, nothing of its head."""
    reader = _PageReader()
    reader.feed(html)
    reader.close()
    lines = (" ".join(line.split()) for line in "".join(reader.parts).splitlines())
    return "\n".join(line for line in lines if line)


class _PageReader(HTMLParser):
    """Collects text, with line breaks around each block."""

    _HIDDEN = frozenset({"head", "script", "style"})
    _BLOCKS = frozenset(
        {"address", "br", "div", "dl", "dt", "h1", "h2", "h3", "li", "p", "pre", "table", "tr"}
    )

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in self._HIDDEN
        self.parts.append("\n" if tag in self._BLOCKS else " ")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in self._HIDDEN
        if tag == "dt":  # a term and what it is stand on one line
            self.parts.append(": ")
        else:
            self.parts.append("\n" if tag in self._BLOCKS else " ")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(re.sub(r"\s+", " ", data))


def relay(line: socket.socket, keyboard: int, screen: int) -> None:
    """Carry bytes both ways between a console and a terminal until Ctrl-], or until one of them ends."""
    while True:
        waiting, _, _ = select.select([line.fileno(), keyboard], [], [])
        if line.fileno() in waiting:
            said = line.recv(4096)
            if not said:
                return
            os.write(screen, said)
        if keyboard in waiting:
            typed, escape, _ = os.read(keyboard, 1024).partition(ESCAPE)
            if typed:
                line.sendall(typed)
            if escape or not typed:
                return


def _raw(work: Callable[[], None]) -> None:
    """Do `work` with the terminal handing over every key as it is pressed."""
    before = termios.tcgetattr(sys.stdin)
    tty.setraw(sys.stdin)
    try:
        work()
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _show_tail(log: Path) -> None:
    """What the console said last, so that a quiet machine does not leave the screen empty."""
    if log.exists():
        os.write(sys.stdout.fileno(), log.read_bytes()[-_LOG_TAIL_BYTES:])


def _find(node: str) -> Machine:
    known = record.read(NAME)
    if known is None:
        raise PxebootError("no lab is up", "start one: pxeboot lab run --keep")
    for machine in known.machines:
        if machine.name == node:
            return machine
    names = ", ".join(machine.name for machine in known.machines)
    raise PxebootError(f"the lab has no machine {node!r}", f"it has: {names}")


def _progress_table(progress: list[Progress], now: float) -> Table:
    table = Table("NODE", "MAC", "ADDRESS", "STAGE", "PROGRESS", box=None)
    table.add_column("SECONDS", justify="right")
    for item in progress:
        address = str(item.node.address) if item.node and item.node.address else ""
        stage = Text(item.stage, style=_STYLES.get(item.stage, ""))
        table.add_row(
            item.machine.name, item.machine.mac, address, stage, _news(item), f"{_seconds(item, now):.1f}"
        )
    return table


_STYLES = {"ready": "green", "serving": "green", "failed": "red", "lost": "red"}


def _news(item: Progress) -> Table | Text:
    """A bar where something is being loaded, otherwise what the node says, or why it failed."""
    if item.node is None or not item.node.total or item.node.failure:
        return Text((item.node.failure or item.node.detail) if item.node else "")
    cell = Table.grid(padding=(0, 1))
    amount = f"{item.node.done / _MEGABYTE:.1f} of {item.node.total / _MEGABYTE:.1f} MB"
    cell.add_row(ProgressBar(total=item.node.total, completed=item.node.done, width=16), amount)
    return cell


def _seconds(item: Progress, now: float) -> float:
    """Since power-on; it stands still when the machine is ready."""
    if item.ready and item.node is not None and item.node.stage_since is not None:
        return item.node.stage_since - item.powered_on
    return now - item.powered_on


def _stage_table(seconds: Mapping[str, Mapping[str, float]]) -> Table:
    """Seconds in each stage by node, and in all from power-on to ready, or to the first request served."""
    table = Table("SECONDS IN", box=None, show_footer=True)
    in_service = any("ready" in stages for stages in seconds.values())
    table.columns[0].footer = "until serving" if in_service else "until ready"
    for node, stages in seconds.items():
        table.add_column(node, f"{sum(stages.values()):.1f}", justify="right")
    for stage in dict.fromkeys(stage for stages in seconds.values() for stage in stages):
        table.add_row(
            stage, *(f"{stages[stage]:.1f}" if stage in stages else "" for stages in seconds.values())
        )
    return table
