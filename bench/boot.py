"""Power-on to a page served, and the memory it took: pxeboot beside Debian's live-boot, with the same root.

    .venv/bin/python -m bench.boot [--quick] [--rounds N] [--state-dir DIR]

live-boot loads the root with `fetch=` from nginx, with dnsmasq for the addresses. Run from the checkout as
root. The first run builds images, a kernel and live-boot's initrd in the state directory, which takes half
an hour. A round takes four minutes, and all rounds of a day make one result. Nothing else that is made stays.
"""

import argparse
import asyncio
import contextlib
import datetime
import http.client
import json
import shutil
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from bench.wire import check, machine
from pxeboot.cli.client import connect
from pxeboot.errors import PxebootError
from pxeboot.image import recipes
from pxeboot.image.library import Library
from pxeboot.lab import network, qemu
from pxeboot.lab.qemu import Firmware, Machine
from pxeboot.lab.scenario import Lab, Scenario
from pxeboot.mac import Mac

ROUNDS = 3
LIMIT_SECONDS = 300.0
POLL_SECONDS = 0.1
MEMORY_MB = 1024
CUSTOM = "custom:virt,nic,nfs,director"
PACKAGES = {
    "mmdebstrap": "mmdebstrap",
    "dnsmasq": "dnsmasq-base",
    "nginx": "nginx-light",
    "qemu-system-x86_64": "qemu-system-x86",
}
MEMORY_PAGE = "/memory.php"
_PAGE = """<?php
header('Content-Type: text/plain');
readfile('/proc/meminfo');
"""
_LIVE_HOOK = f"""#!/bin/sh
[ "$1" = prereqs ] && exit 0
cat >"/root/var/www/html{MEMORY_PAGE}" <<'END'
{_PAGE}END
"""
"""In live-boot's initrd: the same page, laid over the same root."""


@dataclass(frozen=True, slots=True)
class Contender:
    """Who boots, and with which firmware."""

    name: str
    firmware: Firmware


@dataclass(frozen=True, slots=True)
class Figures:
    """One boot: seconds from power-on, bytes of memory once its page is served."""

    page: float
    ready: float | None
    memory: int
    """MemTotal less MemAvailable: root, overlay, kernel and programs."""
    files: int
    """Shmem and Unevictable: what tmpfs and ramfs hold, which is root, overlay and /run."""


Found = dict[Contender, list[Figures]]
NAMES = ("pxeboot, own kernel", "pxeboot, Debian's kernel", "live-boot")


# What is booted


def build_images(state_dir: Path) -> None:
    """`web` with Debian's kernel and with our own, where they are not yet. Raises PxebootError."""
    shipped = recipes.SHIPPED / "web"
    own = state_dir / "web-custom"
    shutil.copytree(shipped, own, dirs_exist_ok=True)
    text = (shipped / recipes.FILE_NAME).read_text()
    (own / recipes.FILE_NAME).write_text(f'kernel = "{CUSTOM}"\n{text}')
    library = Library(state_dir / "images")
    for tag, recipe in (("web", "web"), ("web-custom", str(own))):
        if library.tag(tag) is None:
            command = ["-m", "pxeboot.cli.main", "image", "build", recipe, "--tag", tag]
            subprocess.run([sys.executable, *command, "--state-dir", str(state_dir)], check=True)


def build_live(folder: Path) -> None:
    """Debian's kernel and initrd with live-boot, in `folder`, where they are not yet."""
    if (folder / "initrd.img").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    hook = folder / "hook"
    hook.write_text(_LIVE_HOOK)
    hook.chmod(0o755)
    tree = folder / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    scripts = "usr/share/initramfs-tools/scripts/live-bottom"
    packages = "linux-image-amd64,live-boot,initramfs-tools,busybox"
    subprocess.run(
        [
            *("mmdebstrap", "--mode=root", "--variant=minbase", f"--include={packages}"),
            f'--customize-hook=mkdir -p "$1/{scripts}" && cp {hook} "$1/{scripts}/99memory"',
            '--customize-hook=chroot "$1" update-initramfs -u',
            *("bookworm", str(tree)),
        ],
        check=True,
    )
    for name in ("vmlinuz", "initrd.img"):
        shutil.copyfile(next(iter((tree / "boot").glob(f"{name}-*"))), folder / name)
    shutil.rmtree(tree)


# Booting


async def boot_ours(contender: Contender, tag: str, state_dir: Path) -> Figures:
    """One machine by pxeboot."""
    scenario = Scenario(
        state_dir=state_dir, name="bench-boot", nodes=1, firmware=contender.firmware, image=tag,
        memory_mb=MEMORY_MB,
    )  # fmt: skip
    page = {"data": b64encode(_PAGE.encode()).decode()}
    async with Lab(scenario) as lab:
        async with connect(lab.socket.parent) as client:
            mac = lab.machines[0].mac
            await client.ask("PATCH", f"/nodes/{mac}", {"files": {f"/var/www/html{MEMORY_PAGE}": page}})
        began = time.time()
        await lab.power_on()
        address = str(network.ADDRESS.ip + 99)
        told = await asyncio.to_thread(network.in_namespace, lab.namespace, lambda: _served(address))
        served = time.time() - began
        async for progress in lab.follow():
            node = progress[0].node
        async with connect(lab.socket.parent) as client:
            (boot,) = (await client.ask("GET", f"/nodes/{mac}"))["boots"]
        assert node is not None
        return Figures(served, boot["reached"]["ready"] - began, *_used(told))


def boot_live(contender: Contender, state_dir: Path) -> Figures:
    """One machine by live-boot, dnsmasq and nginx."""
    root = Library(state_dir / "images").resolve("web").root
    folder = state_dir / "live" / contender.firmware.value
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made = Machine(
        name="live", mac=Mac("52:54:00:77:01:01"), tap="tap1", folder=folder, firmware=contender.firmware,
        memory_mb=MEMORY_MB,
    )  # fmt: skip
    namespace = "bench-boot-live"
    network.delete(namespace)
    try:
        network.create(namespace, [made.tap])
        with contextlib.ExitStack() as running:
            for command in _peers(folder, state_dir / "live", root, made.mac):
                running.enter_context(_running(namespace, command, folder / "log"))
            time.sleep(1)
            qemu.prepare(made)
            began = time.time()
            running.enter_context(_running(namespace, qemu.command_line(made), folder / "log"))
            told = network.in_namespace(namespace, lambda: _served(str(network.ADDRESS.ip + 99)))
            return Figures(time.time() - began, None, *_used(told))
    finally:
        network.delete(namespace)


def _peers(folder: Path, live: Path, root: Path, mac: Mac) -> list[list[str]]:
    """dnsmasq and nginx, each as fast as it can be told to be: iPXE need not wait for a ProxyDHCP server."""
    ours, given = network.ADDRESS.ip, network.ADDRESS.ip + 99
    web = folder / "www"
    web.mkdir()
    for name, path in (
        ("vmlinuz", live / "vmlinuz"),
        ("initrd.img", live / "initrd.img"),
        ("root.squashfs", root),
    ):
        (web / name).symlink_to(path.absolute())
    base = f"http://{ours}"
    words = f"boot=live fetch={base}/root.squashfs console=ttyS0"
    (web / "boot.ipxe").write_text(
        f"#!ipxe\nkernel {base}/vmlinuz initrd=initrd.img {words}\ninitrd {base}/initrd.img\nboot\n"
    )
    (folder / "nginx.conf").write_text(f"""
daemon off; master_process off; user root; error_log {folder}/error.log; pid {folder}/pid;
events {{ worker_connections 256; }}
http {{
    access_log off; sendfile on; tcp_nopush on;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen {ours}:80; root {web}; }}
}}
""")
    return [
        ["nginx", "-c", str(folder / "nginx.conf")],
        [
            *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--no-ping"),
            *(f"--interface={network.BRIDGE}", "--bind-interfaces", "--leasefile-ro", "--pid-file="),
            *(f"--dhcp-range={given},{given}", f"--dhcp-host={mac},{given}", "--dhcp-authoritative"),
            *(f"--dhcp-boot={base}/boot.ipxe", "--dhcp-option=175,b0:01:01", "--log-facility=-"),
        ],
    ]


@contextlib.contextmanager
def _running(namespace: str, command: list[str], log: Path) -> Iterator[None]:
    with log.open("ab") as output:
        process = network.in_namespace(
            namespace,
            lambda: subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output),
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _served(address: str) -> str:
    """Wait until the node serves its page; what it says of its memory. Raises PxebootError."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection(address, 80, timeout=10)
        try:
            connection.request("GET", MEMORY_PAGE)
            answer = connection.getresponse()
            text = answer.read().decode()
            if answer.status == http.HTTPStatus.OK:
                return text
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(POLL_SECONDS)
    raise PxebootError(f"{address} served no page within {LIMIT_SECONDS:.0f} s", "see its console log")


def _used(meminfo: str) -> tuple[int, int]:
    """The two sizes of `Figures`, from /proc/meminfo: proc(5). live-boot has its root in a ramfs."""
    facts = {name: int(rest.split()[0]) * 1024 for name, _, rest in
             (line.partition(":") for line in meminfo.splitlines()) if rest}  # fmt: skip
    return facts["MemTotal"] - facts["MemAvailable"], facts["Shmem"] + facts["Unevictable"]


# The run


def measure(state_dir: Path, rounds: int, firmwares: list[Firmware]) -> Found:
    """Alternating boots."""
    found: Found = defaultdict(list)
    tags = {NAMES[0]: "web-custom", NAMES[1]: "web"}
    for number in range(rounds):
        for firmware in firmwares:
            for name in NAMES:
                contender = Contender(name, firmware)
                figures = (
                    asyncio.run(boot_ours(contender, tags[name], state_dir))
                    if name in tags
                    else boot_live(contender, state_dir)
                )
                found[contender].append(figures)
                print(f"{number + 1}: {firmware.value}: {name}: {figures}", flush=True)
    return found


def keep(found: Found, path: Path) -> Found:
    """Put these rounds behind those that the file has; all of them."""
    rows = json.loads(path.read_text()) if path.exists() else []
    rows += [
        {**asdict(contender), **asdict(item)} for contender, figures in found.items() for item in figures
    ]
    path.write_text(json.dumps(rows, indent=1) + "\n")
    every: Found = defaultdict(list)
    for row in rows:
        contender = Contender(row["name"], Firmware(row["firmware"]))
        every[contender].append(Figures(row["page"], row["ready"], row["memory"], row["files"]))
    return every


def report(found: Found, state_dir: Path) -> str:
    """The result as Markdown."""
    rows = []
    for contender, figures in found.items():
        page = median(item.page for item in figures)
        peer = median(item.page for item in found[Contender(NAMES[2], contender.firmware)])
        ready = [item.ready for item in figures if item.ready is not None]
        rows.append(
            f"| {contender.firmware.value} | {contender.name} | {page:.1f} | {page / peer:.2f} |"
            f" {f'{median(ready):.1f}' if ready else '-'} |"
            f" {median(item.memory for item in figures) / 1e6:.0f} |"
            f" {median(item.files for item in figures) / 1e6:.0f} |"
        )
    library = Library(state_dir / "images")
    sizes = [
        f"- {name}: kernel {image.kernel.stat().st_size / 1e6:.1f} MB,"
        f" initrd {image.initrd.stat().st_size / 1e6:.1f} MB, root {image.root.stat().st_size / 1e6:.1f} MB"
        for name, image in ((NAMES[0], library.resolve("web-custom")), (NAMES[1], library.resolve("web")))
    ]
    kernel, initrd = (
        ((state_dir / "live" / name).stat().st_size / 1e6) for name in ("vmlinuz", "initrd.img")
    )
    return "\n".join(
        [
            f"# Boot, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
            "",
            f"{machine()}. QEMU without KVM, one processor, {MEMORY_MB} MB. The recipe `web`;",
            "live-boot has the root of Debian's kernel.",
            f"Medians of {min(map(len, found.values()))} alternating boots. Memory, once the page is",
            "served, is what is not available any more (MemTotal - MemAvailable); files is what of it",
            "tmpfs and ramfs hold (Shmem + Unevictable): root, overlay and /run.",
            "",
            "| firmware | booted by | page served, s | of live-boot | ready, s | memory, MB | files, MB |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            *sizes,
            f"- {NAMES[2]}: kernel {kernel:.1f} MB, initrd {initrd:.1f} MB, the root of Debian's kernel",
            "",
        ]
    )


def main() -> int:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description="boot time and memory, beside live-boot")
    parser.add_argument("--quick", action="store_true", help="one round with BIOS, no result file")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--state-dir", type=Path, default=Path(".demo"), help="where images and caches are")
    parser.add_argument("--build-only", action="store_true", help="make what is booted, and end")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # unwinds, as Ctrl-C does
    state_dir = asked.state_dir.absolute()
    firmwares = [Firmware.BIOS] if asked.quick else [Firmware.BIOS, Firmware.UEFI]
    try:
        check(PACKAGES)
        build_images(state_dir)
        build_live(state_dir / "live")
        if asked.build_only:
            return 0
        found = measure(state_dir, 1 if asked.quick else asked.rounds, firmwares)
    except (PxebootError, subprocess.CalledProcessError) as error:
        print(f"error: {error}\nhint: {getattr(error, 'hint', 'see above')}", file=sys.stderr)
        return 1
    stem = Path(__file__).parent / "results" / f"boot-{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    if not asked.quick:
        found = keep(found, stem.with_suffix(".json"))
    text = report(found, state_dir)
    print(text)
    if not asked.quick:
        stem.with_suffix(".md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
