"""The shipped image `web` after its strip rules: what it weighs, and that everything in it still runs."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from pxeboot.image.library import Image

pytestmark = [pytest.mark.boot, pytest.mark.timeout(500)]

INSIDE = """
cd "$1"; shift
mount -t proc proc proc; mount -t tmpfs none run; mount -t tmpfs none tmp; mount --bind /dev dev
mkdir run/lock
exec chroot . "$@"
"""
CHARACTER_SETS = (
    "windows-1252", "windows-1250", "windows-1251", "windows-1253", "windows-1258", "windows-874",
    "macintosh",
    "ISO-8859-1", "ISO-8859-2", "ISO-8859-5", "ISO-8859-8", "ISO-8859-15", "KOI8-R", "KOI8-U", "IBM866",
    "Shift_JIS", "EUC-JP", "ISO-2022-JP", "GBK", "GB18030", "Big5", "EUC-KR", "UTF-16",
)  # fmt: skip
CONVERTERS = """
$icu = FFI::cdef("void *ucnv_open_72(const char *name, int *error);", "libicuuc.so.72");
foreach (explode(" ", $argv[1]) as $name) {
    $error = FFI::new("int");
    $icu->ucnv_open_72($name, FFI::addr($error));
    $found[$name] = $error->cdata <= 0 && iconv("UTF-8", $name, "abc") !== false;
}
echo json_encode($found);
"""
LIBRARIES = """
for file in $(find /usr/bin /usr/sbin /usr/lib -type f ! -name "*.ko"); do
    /lib64/ld-linux-x86-64.so.2 --list "$file" 2>/dev/null | grep "not found" | sed "s,^,$file ,"
done
"""


@pytest.fixture(scope="module")
def root(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root file system, unpacked."""
    tree = tmp_path_factory.mktemp("web") / "root"
    subprocess.run(["unsquashfs", "-q", "-n", "-d", tree, image.root], check=True, timeout=200)
    return tree


def run(root: Path, *command: str) -> str:
    """What a program says that runs inside, in mount and process namespaces of its own."""
    confined = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "sh",
        "-euc",
        INSIDE,
        "sh",
        str(root),
    ]
    done = subprocess.run([*confined, *command], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_it_is_as_small_as_promised(image: Image) -> None:
    assert image.manifest.unpacked_bytes <= 100_000_000
    assert image.manifest.artefacts.root.size <= 34_000_000


def test_every_rule_saved_something_or_had_nothing_to_do(image: Image) -> None:
    saved = {rule.rule: rule.size for rule in image.manifest.stripped}
    assert {rule for rule, size in saved.items() if size <= 0} <= {"firmware", "hardware-data"}
    assert saved["icu-data"] > 25_000_000


def test_every_library_that_is_needed_is_there(root: Path) -> None:
    assert run(root, "sh", "-c", LIBRARIES) == ""


def test_php_runs_the_page_and_has_all_its_modules(root: Path) -> None:
    assert "<dt>PHP</dt><dd>8.2" in run(root, "php", "/var/www/html/index.php")
    modules = run(root, "php", "-m").split()
    assert {"libxml", "iconv", "fileinfo", "openssl", "sodium", "zlib", "json", "session"} <= set(modules)
    assert "application/x-pie-executable" in run(
        root, "php", "-r", 'echo (new finfo(FILEINFO_MIME_TYPE))->file("/usr/bin/php");'
    )


def test_the_webs_character_sets_are_converted(root: Path) -> None:
    found = json.loads(run(root, "php", "-r", CONVERTERS, " ".join(CHARACTER_SETS)))
    assert [name for name in CHARACTER_SETS if not found[name]] == []


def test_time_zones_and_names_of_hosts_are_found(root: Path) -> None:
    zone = 'echo (new DateTime("2025-07-01", new DateTimeZone("Europe/Berlin")))->format("P");'
    assert run(root, "php", "-r", zone) == "+02:00"
    assert run(root, "getent", "passwd", "www-data").startswith("www-data:x:33:")


@pytest.mark.parametrize(
    "command",
    [
        ("apache2ctl", "-t"),
        (
            "systemd-analyze",
            "verify",
            "--man=no",
            "default.target",
            "apache2.service",
            "phpsessionclean.timer",
        ),
        ("/usr/lib/php/sessionclean",),
        ("bash", "-lc", "ip -V && ss -V && kmod --version && ps && top -bn1 && ls -l /"),
    ],
)
def test_services_and_tools_run(root: Path, command: Sequence[str]) -> None:
    run(root, *command)
