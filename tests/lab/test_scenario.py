import asyncio
import hashlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from pxeboot import config
from pxeboot.errors import PxebootError
from pxeboot.image.library import Library
from pxeboot.image.manifest import Artefact, Artefacts, Manifest
from pxeboot.lab import guest, network, record, scenario
from pxeboot.lab.director import Forward
from pxeboot.lab.qemu import Firmware
from pxeboot.lab.scenario import Lab, Progress, Scenario
from pxeboot.mac import Mac

from .conditions import needs_emulator, needs_network

# Enough of an image for a server to serve; no machine gets further than loading it.
FILES = {"root": b"no file system", "kernel": b"no kernel", "initrd": b"no archive"}


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """A state directory whose library has an image with the tag `web`."""
    library = Library(tmp_path / "images")
    with library.draft() as draft:
        for name, data in FILES.items():
            (draft.entry / (name if name != "root" else "root.squashfs")).write_bytes(data)
        parts = {
            name: Artefact(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
            for name, data in FILES.items()
        }
        manifest = Manifest(
            recipe="web", suite="bookworm", kernel_version="6.1", artefacts=Artefacts(**parts),
            unpacked_bytes=1, packages=(),
        )  # fmt: skip
        image = library.put(draft, manifest)
    library.set_tag("web", image.digest)
    return tmp_path


@pytest.fixture
def name() -> Iterator[str]:
    own = f"test-{os.getpid()}"
    yield own
    record.down(own)


def test_the_configuration_is_one_that_the_server_accepts(tmp_path: Path) -> None:
    text = scenario.configuration(Scenario(state_dir=tmp_path, image="blog"), tmp_path / 'a "quoted" folder')
    read = config.parse(text)
    assert read.https is None
    secure = scenario.configuration(Scenario(state_dir=tmp_path, https=True), tmp_path)
    assert config.parse(secure).https == config.HttpsConfig()
    assert read.server.state_dir == tmp_path / 'a "quoted" folder'
    assert read.network[0].interface == network.BRIDGE
    assert read.network[0].subnet == network.ADDRESS.network
    assert str(read.network[0].pool[0]) == "10.77.0.100-10.77.0.199"
    assert (read.group[0].image, read.group[0].match, read.group[0].kernel_args) == (
        "blog",
        ("*",),
        "console=ttyS0",
    )


def test_machines_have_names_taps_and_addresses_of_their_own(tmp_path: Path) -> None:
    machines = Lab(Scenario(state_dir=tmp_path, nodes=12, firmware=Firmware.UEFI)).machines
    assert [machine.name for machine in machines[:2]] == ["node1", "node2"]
    assert machines[11].mac == Mac("52:54:00:77:00:0c")
    assert len({machine.tap for machine in machines}) == 12


@pytest.mark.parametrize("name", ["", "a/b", "..", "Lab", "x" * 33])
def test_a_name_that_would_not_do_for_files_and_namespaces_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        Scenario(state_dir=tmp_path, name=name)


def test_stage_seconds_run_from_power_on_and_leave_the_last_stage_out() -> None:
    reached = {"address": 112.5, "discover": 110.0, "ready": 140.0}
    assert scenario.stage_seconds(100.0, reached) == {"firmware": 10.0, "discover": 2.5, "address": 27.5}


def test_a_machine_never_heard_of_is_in_its_firmware(tmp_path: Path) -> None:
    silent = Progress(machine=Lab(Scenario(state_dir=tmp_path)).machines[0], powered_on=0.0)
    assert (silent.stage, silent.ready) == ("firmware", False)


@pytest.mark.parametrize("forward", ["nat", "dr", "tun"])
def test_a_service_is_one_that_the_server_accepts(tmp_path: Path, forward: Forward) -> None:
    wanted = Scenario(state_dir=tmp_path, forward=forward)
    read = config.parse(scenario.configuration(wanted, tmp_path, guest.INTERFACE))
    assert read.network[0].interface == guest.INTERFACE
    assert read.server.admin_endpoint == ("10.77.0.1", 8080)
    (service,) = read.service
    assert (service.forward, service.group, service.scheduler) == (forward, "lab", "rr")


@pytest.mark.net
@needs_network
@needs_emulator
class TestUp:
    """A lab that is up, with the real server."""

    async def test_an_image_that_is_not_there_is_refused_before_anything_starts(
        self, tmp_path: Path, name: str
    ) -> None:
        with pytest.raises(PxebootError, match="no image 'web'") as caught:
            async with Lab(Scenario(state_dir=tmp_path, name=name)):
                pass
        assert "pxeboot image build web" in caught.value.hint
        assert not network.exists(record.namespace_of(name))

    async def test_a_state_dir_too_long_for_sockets_is_refused(self, state_dir: Path, name: str) -> None:
        deep = state_dir / ("d" * 80)
        deep.mkdir()
        (deep / "images").symlink_to(state_dir / "images")
        with pytest.raises(PxebootError, match="too long for a Unix socket"):
            async with Lab(Scenario(state_dir=deep, name=name)):
                pass

    async def test_the_server_answers_and_everything_is_gone_afterwards(
        self, state_dir: Path, name: str
    ) -> None:
        said: list[str] = []
        async with Lab(Scenario(state_dir=state_dir, name=name), said.append) as lab:
            assert network.interfaces(lab.namespace).keys() == {"lo", network.BRIDGE, "tap1", "tap2"}
            assert lab.server is not None
            assert lab.server.poll() is None
        assert lab.server.poll() == 0
        assert not network.exists(lab.namespace)
        assert {path.name for path in lab.scenario.folder.iterdir()} == {"server.log"}
        assert record.read(name) is None
        assert len(said) == 2

    async def test_an_exception_inside_ends_everything_too(self, state_dir: Path, name: str) -> None:
        lab = Lab(Scenario(state_dir=state_dir, name=name))
        with pytest.raises(ZeroDivisionError):
            async with lab:
                raise ZeroDivisionError
        assert not network.exists(lab.namespace)

    async def test_a_server_that_does_not_start_is_quoted(self, state_dir: Path, name: str) -> None:
        lab = Lab(Scenario(state_dir=state_dir, name=name))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scenario, "configuration", lambda *_: 'colour = "red"')
            with pytest.raises(PxebootError, match=r"ended with status 1:\n.*pxeboot\.toml: ") as caught:
                async with lab:
                    pass
        assert str(lab.server_log) in caught.value.hint
        assert not network.exists(lab.namespace)

    async def test_a_machine_is_known_by_its_name_and_seen_asking(self, state_dir: Path, name: str) -> None:
        async with Lab(Scenario(state_dir=state_dir, name=name, nodes=1, memory_mb=128)) as lab:
            await lab.power_on()
            async with asyncio.timeout(45):
                async for progress in lab.follow():
                    if progress[0].stage not in ("firmware", "discover"):
                        break
            assert progress[0].node is not None
            assert progress[0].node.name == "node1"
            seconds = await lab.stage_seconds(lab.machines[0])
            assert list(seconds)[:2] == ["firmware", "discover"]
            assert b"iPXE" in lab.machines[0].console_log.read_bytes()

    async def test_who_is_stuck_is_named_with_its_stage_and_its_log(self, state_dir: Path, name: str) -> None:
        lab = Lab(Scenario(state_dir=state_dir, name=name, nodes=1, memory_mb=128, timeout_seconds=0.1))
        async with lab:
            await lab.power_on()
            with pytest.raises(PxebootError, match="node1 is in stage firmware") as caught:
                async for _ in lab.follow():
                    pass
        assert str(lab.machines[0].console_log) in caught.value.hint

    async def test_a_machine_that_goes_off_is_reported(self, state_dir: Path, name: str) -> None:
        async with Lab(Scenario(state_dir=state_dir, name=name, nodes=1, memory_mb=128)) as lab:
            await lab.power_on()
            [emulator] = [known for known in read_processes(name) if "qemu" in command_of(known)]
            record.end([emulator])
            with pytest.raises(PxebootError, match="node1 is off"):
                async for _ in lab.follow():
                    pass

    async def test_a_lab_killed_with_its_machines_on_is_cleared_by_the_next(
        self, state_dir: Path, name: str
    ) -> None:
        owner = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(state_dir), name], stdout=subprocess.PIPE, text=True
        )
        assert owner.stdout is not None
        with owner.stdout:
            assert owner.stdout.readline() == "up\n"
        owner.kill()
        owner.wait()
        left = read_processes(name)
        assert len(left) == 2
        said: list[str] = []
        async with Lab(Scenario(state_dir=state_dir, name=name, nodes=1), said.append):
            assert not any(record.alive(known) for known in left)
        assert said[0] == "Cleared away what a crashed lab had left behind."


OWNER = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from pxeboot.lab.scenario import Lab, Scenario

    async def main():
        known = Scenario(state_dir=Path(sys.argv[1]), name=sys.argv[2], nodes=1, memory_mb=128)
        async with Lab(known) as lab:
            await lab.power_on()
            print("up", flush=True)
            await asyncio.sleep(300)

    asyncio.run(main())
""")


def read_processes(name: str) -> tuple[record.Process, ...]:
    known = record.read(name)
    assert known is not None
    return known.processes


def command_of(known: record.Process) -> str:
    return Path(f"/proc/{known.pid}/cmdline").read_text()
