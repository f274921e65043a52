"""Boot scripts: the same instructions in the words of iPXE, of PXELINUX and of GRUB."""

import shlex
from dataclasses import dataclass
from ipaddress import IPv4Address
from urllib.parse import urlsplit

from pxeboot.mac import Mac

RETRY_SECONDS = 10
GRUB_CONFIG = "grub/grub.cfg"
"""What Debian's network images of GRUB ask for. It has no name in it: the machine is known by its address."""


@dataclass(frozen=True, slots=True)
class Instructions:
    """Everything that one boot is told."""

    mac: Mac
    name: str
    url: str
    """`http://<server>/boot/<token>`, below which kernel, initrd and root are."""
    script_url: str
    """Where a loader that failed may ask again."""
    image: str
    """Digest of the image."""
    root_sha256: str
    root_size: int
    """Bytes of the root image."""
    kernel_args: str = ""
    address: str = ""
    """`10.77.0.100/24`, when the server knows it, so that the initrd need not ask again."""
    router: IPv4Address | None = None
    dns: tuple[IPv4Address, ...] = ()
    https: "Https | None" = None


@dataclass(frozen=True, slots=True)
class Https:
    """What our initrd needs to speak HTTPS; the loader loads by HTTP all the same."""

    url: str
    """In place of `Instructions.url`: with the name of our certificate."""
    server: IPv4Address
    """Whom that name means; nobody need resolve it."""
    now: int
    """Unix seconds: a clock that is behind would find a certificate not yet valid."""


def kernel_command_line(told: Instructions) -> str:
    """What `initrd/init` reads from /proc/cmdline."""
    words = [
        f"BOOTIF=01-{told.mac.dashed}",
        f"pxeboot.url={told.https.url if told.https else told.url}",
        f"pxeboot.image={told.image}",
        f"pxeboot.root={told.root_sha256}",
        f"pxeboot.size={told.root_size}",
        f"pxeboot.name={told.name}",
    ]
    if told.https:
        words += [f"pxeboot.server={told.https.server}", f"pxeboot.time={told.https.now}"]
    if told.address:
        words.append(f"pxeboot.address={told.address}")
        if told.router is not None:
            words.append(f"pxeboot.router={told.router}")
        if told.dns:
            words.append("pxeboot.dns=" + ",".join(str(item) for item in told.dns))
    return " ".join([*words, told.kernel_args]).strip()


def ipxe_script(told: Instructions) -> str:
    """Load and start; after a failure ask for a new script, for as long as it takes.

    `initrd=initrd` is for EFI, where the kernel's stub asks iPXE for the file of that name; BIOS ignores it.
    """
    return f"""#!ipxe
echo pxeboot: {told.name} boots image {told.image[:12]}
kernel {told.url}/kernel initrd=initrd {kernel_command_line(told)} || goto failed
initrd --name initrd {told.url}/initrd || goto failed
boot || goto failed
:failed
echo pxeboot: loading failed, once more in {RETRY_SECONDS} s
imgfree
sleep {RETRY_SECONDS}
chain --replace {told.script_url} || goto failed
"""


def ipxe_refusal(reason: str, script_url: str) -> str:
    """Say why there is nothing to boot, and ask again: what is missing may come."""
    return f"""#!ipxe
echo pxeboot: {reason}
:again
echo pxeboot: asking again in {RETRY_SECONDS} s
sleep {RETRY_SECONDS}
chain --replace {script_url} || goto again
"""


def pxelinux_config(told: Instructions) -> str:
    """For lpxelinux.0, which loads by HTTP. An `initrd=` in APPEND would be a file for it to fetch."""
    return f"""DEFAULT pxeboot
PROMPT 0
LABEL pxeboot
  KERNEL {told.url}/kernel
  INITRD {told.url}/initrd
  APPEND {kernel_command_line(told)}
"""


def grub_config(told: Instructions) -> str:
    """For a GRUB that the operator gives firmware which iPXE is not packaged for.

    It loads by TFTP, where the same paths are: Debian's images are without GRUB's `http`. The kernel's words
    are quoted, for GRUB reads `$`, `;` and `&` as a shell does.
    """
    url = urlsplit(told.url)
    device = f"(tftp,{url.hostname}){url.path}"
    words = " ".join(shlex.quote(word) for word in kernel_command_line(told).split())
    return f"""echo "pxeboot: {told.name} boots image {told.image[:12]}"
if linux {device}/kernel {words}; then
  if initrd {device}/initrd; then
    boot
  fi
fi
echo "pxeboot: loading failed, starting again in {RETRY_SECONDS} s"
sleep {RETRY_SECONDS}
reboot
"""


def pxelinux_name(name: str) -> Mac | None:
    """The machine whose configuration PXELINUX asks for: `pxelinux.cfg/01-52-54-00-12-34-56`.

    PXELINUX tries a UUID before and parts of the address after it; only the name with hardware type
    and MAC address is a machine's own.
    """
    folder, _, rest = name.rpartition("/")
    if folder != "pxelinux.cfg" or not rest.lower().startswith("01-"):
        return None
    try:
        return Mac.parse(rest[3:])
    except ValueError:
        return None
