"""Imports go down only, and floors 0 to 2 do nothing but decide (design.md, section 2)."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pxeboot"

FLOORS: list[tuple[str, ...]] = [
    ("errors", "mac", "words", "toml", "config", "balancer.check", "balancer.service", "balancer.target",
     "balancer.table", "resources", "segments", "dhcp.values", "dhcp.custom",
     "inventory.overlay", "image.kconfig",
     "inventory.node", "inventory.boot", "inventory.lease", "image.rules", "image.recipe", "image.manifest"),
    ("dhcp.options", "dhcp.packet", "dhcp.frame", "dhcp.arp", "tftp.packet", "ndp.packet", "image.cpio",
     "image.icu"),
    ("overlay",
     "pxe.arch", "pxe.client", "pxe.policy", "pxe.script", "dhcp.bootfile", "dhcp.relay", "dhcp.terms",
     "dhcp.verdict", "dhcp.responder", "dhcp.form", "dhcp.kinds", "dhcp.conflict", "dhcp.proxy",
     "tftp.transfer", "inventory.pool", "web.token", "web.ranges", "web.admission", "web.certificates",
     "site", "dns.zone", "dns.message", "diagnose.servers", "balancer.health", "balancer.equipment",
     "balancer.plan", "balancer.roster"),
    ("inventory.store", "inventory.sqlite", "inventory.identity", "inventory.progress", "events", "tasks",
     "metrics"),
    ("lasting",
     "dhcp.service", "dhcp.proxy_service", "dhcp.proxy_server", "dhcp.prober", "dhcp.inbox", "dhcp.outbox",
     "dhcp.lane", "dhcp.server", "tftp", "ndp.server", "links", "preflight", "diagnose", "orders", "dns",
     "web", "image", "lab", "balancer"),
    ("app", "readings"),
    ("cli",),
]  # fmt: skip
PURE = 2
NOT_FOR_DECIDERS = {"asyncio", "logging", "os", "random", "secrets", "socket", "sqlite3", "subprocess",
                    "threading", "time"}  # fmt: skip


def _modules() -> list[str]:
    found = (path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
    return sorted(".".join(path.parts) for path in found if path.name != "__init__")


def _floor(module: str) -> int:
    """The floor of a module: its own row, or that of its folder."""
    for name in (module, module.partition(".")[0]):
        for floor, rows in enumerate(FLOORS):
            if name in rows:
                return floor
    raise AssertionError(f"pxeboot.{module} has no floor: give it one in FLOORS")


def _imports(module: str) -> set[str]:
    path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _ours(module: str) -> set[str]:
    ours = {name.removeprefix("pxeboot.") for name in _imports(module) if name.startswith("pxeboot.")}
    return ours & set(_modules())


@pytest.mark.parametrize("module", _modules())
def test_imports_go_down_only(module: str) -> None:
    above = {name for name in _ours(module) if _floor(name) > _floor(module)}
    if module == "inventory.store":
        above -= {"inventory.sqlite"}  # the row of `open_store`
    assert not above


@pytest.mark.parametrize("module", [name for name in _modules() if _floor(name) <= PURE])
def test_who_decides_does_no_io_and_reads_no_clock(module: str) -> None:
    assert not _imports(module) & NOT_FOR_DECIDERS


def test_the_check_sees_an_import_that_goes_up() -> None:
    assert "app" in _ours("cli.server")
    assert _floor("app") < _floor("cli.server")
