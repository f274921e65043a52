"""What may be left out of an image, by name: which files, and why nothing on a node misses them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Action = Literal["perl-scripts", "apache-modules", "icu-data", "unused-libraries"]
"""What needs a look at the tree, where a list of paths does not do: `strip.py` has one function for each."""

_LIB = "/usr/lib/*-linux-gnu"
"""Debian's folder of libraries, whatever the architecture. A `*` matches slashes too."""


@dataclass(frozen=True)
class StripRule:
    """One named rule. `what` and `why` are what the operator reads."""

    what: str
    why: str
    paths: tuple[str, ...] = ()
    """Patterns as in a recipe's `drop`."""
    keep: tuple[str, ...] = ()
    """Patterns of what stays of it."""
    action: Action | None = None
    """Done after the paths are gone."""


RULES: Mapping[str, StripRule] = {
    "documentation": StripRule(
        "manual pages, documentation, explanations of log messages, bug scripts, copies of licences",
        "read on another machine; Debian's archive has every licence text",
        (
            "/usr/share/doc/*", "/usr/share/doc-base/*", "/usr/share/man/*", "/usr/share/info/*",
            "/usr/share/lintian/*", "/usr/share/bug/*", "/usr/share/common-licenses/*", "/usr/share/menu/*",
            "/usr/share/pixmaps/*", "/usr/share/gdb/*", "/usr/share/gcc/*", "/usr/share/dict/*",
            "/var/lib/doc-base/*", "/var/lib/systemd/catalog/*", "/usr/lib/systemd/catalog/*",
        ),
    ),
    "locales": StripRule(
        "translations; the locale C.UTF-8 stays",
        "programs fall back to English, and servers run in C.UTF-8",
        ("/usr/share/locale/*", "/usr/share/i18n/*", "/usr/lib/locale/*"),
        ("/usr/lib/locale/C.*",),
    ),
    "charsets": StripRule(
        "glibc's converters of character sets, but for those of the web and of mail",
        "iconv() knows UTF-8, UTF-16, Latin 1 and ASCII by itself; the rest is for old archives",
        (f"{_LIB}/gconv/*.so",),
        tuple(
            f"{_LIB}/gconv/{name}.so"
            for name in (
                "ISO8859-*", "CP125*", "KOI8-*", "MACINTOSH", "IBM437", "IBM850", "IBM852", "IBM866",
                "IBM874", "UTF-*", "UNICODE", "CP932", "SJIS", "EUC-JP", "EUC-JP-MS", "EUC-KR", "EUC-CN",
                "UHC", "GBK", "GB18030", "BIG5", "BIG5HKSCS", "TIS-620", "ISO-2022-JP", "ISO-2022-KR",
                "libJIS", "libKSC", "libGB", "libCNS",
            )
        ),
    ),
    "caches": StripRule(
        "caches that packages keep, and the journal's folder on disk",
        "made anew when wanted; without /var/log/journal the journal stays in /run, which has a bound",
        ("/var/cache/*/*", "/var/log/journal"),
        ("/var/cache/apache2/*",),
    ),
    "package-manager": StripRule(
        "apt, dpkg, debconf and ucf, with their lists, data bases, keys and cron jobs",
        "an update is a new image; a package installed on a node is gone after its next boot",
        (
            "/usr/bin/apt*", "/usr/lib/apt", "/var/lib/apt", "/etc/apt", "/usr/bin/dpkg*", "/usr/sbin/dpkg-*",
            "/usr/lib/dpkg", "/usr/share/dpkg", "/var/lib/dpkg", "/etc/dpkg", "/usr/bin/debconf*",
            f"{_LIB}/libapt-*", f"{_LIB}/libdebconfclient*",
            "/usr/share/debconf", "/usr/bin/ucf*", "/usr/bin/lcf", "/usr/share/ucf", "/var/lib/ucf",
            "/usr/bin/update-alternatives", "/usr/share/polkit-1/actions/*dpkg*", "/usr/bin/gpgv",
            "/usr/share/keyrings/debian-archive-*", "/usr/share/keyrings/ubuntu-*", "/usr/bin/deb-systemd-*",
            "/usr/sbin/invoke-rc.d", "/usr/sbin/update-rc.d", "/etc/cron.daily/*",
            "/usr/share/initramfs-tools", "/etc/kernel", "/usr/sbin/installkernel", "/usr/bin/kernel-install",
        ),
    ),
    "perl": StripRule(
        "Perl, its libraries, and every program written in it",
        "maintainer scripts, adduser and a2enmod want it, and they have run",
        (
            "/usr/bin/perl*", "/usr/share/perl", "/usr/share/perl5", f"{_LIB}/perl", f"{_LIB}/perl5",
            f"{_LIB}/perl-base", f"{_LIB}/libperl.so*", "/etc/perl",
        ),
        action="perl-scripts",
    ),
    "magic": StripRule(
        "the data base of file types",
        "for the command `file` and Apache's mod_mime_magic; PHP's fileinfo has one of its own built in",
        ("/usr/lib/file", "/usr/share/misc/magic*", "/usr/share/file", "/etc/magic*"),
    ),
    "terminfo": StripRule(
        "descriptions of terminals but for those of consoles, xterm, screen and tmux",
        "a login comes from one of these",
        ("/usr/lib/terminfo/*/*", "/usr/share/terminfo/*", "/usr/share/tabset/*"),
        tuple(f"/usr/lib/terminfo/?/{name}" for name in
              ("linux", "vt1*", "vt220", "xterm*", "screen*", "tmux*", "dumb", "ansi")),
    ),
    "shell-completion": StripRule(
        "completions for bash, zsh and fish",
        "for people who type; the package that reads them is not there either",
        (
            "/usr/share/bash-completion", "/usr/share/zsh", "/usr/share/fish", "/etc/bash_completion.d",
        ),
    ),
    "development": StripRule(
        "static libraries, headers, pkg-config files, debugging aids of libraries",
        "programs are built elsewhere",
        (
            f"{_LIB}/*.a", f"{_LIB}/*.o", "/usr/include/*", f"{_LIB}/pkgconfig", "/usr/share/pkgconfig",
            "/usr/share/aclocal", f"{_LIB}/libmemusage.so", f"{_LIB}/libpcprofile.so", "/usr/bin/localedef",
            f"{_LIB}/libc_malloc_debug.so.0", f"{_LIB}/libthread_db.so.1", "/usr/sbin/iconvconfig",
            "/usr/sbin/zic", "/usr/bin/bashbug", "/usr/bin/pldd", "/usr/bin/ldd", "/usr/bin/sotruss",
        ),
    ),
    "firmware": StripRule(
        "firmware files of devices",
        "what the drivers of the initrd load, they have loaded before the root is there",
        ("/usr/lib/firmware/*",),
    ),
    "hardware-data": StripRule(
        "udev's hardware data base, names of PCI and USB devices",
        "names for people; no driver is chosen by them",
        (
            "/usr/lib/udev/hwdb.bin", "/usr/lib/udev/hwdb.d/*", "/etc/udev/hwdb.bin", "/etc/udev/hwdb.d/*",
            "/usr/share/misc/pci.ids*", "/usr/share/misc/usb.ids*", "/usr/share/hwdata/*",
        ),
    ),
    "disk-tools": StripRule(
        "making, checking and growing file systems, partitions, encrypted and mapped disks",
        "the root is in RAM; a node without disks has nothing to use them on",
        (
            "/usr/sbin/mke2fs", "/usr/sbin/mkfs*", "/usr/sbin/e2*", "/usr/sbin/e4*", "/usr/sbin/fsck*",
            "/usr/sbin/debugfs", "/usr/sbin/dumpe2fs", "/usr/sbin/tune2fs", "/usr/sbin/resize2fs",
            "/usr/sbin/badblocks", "/usr/sbin/logsave", "/usr/sbin/filefrag", "/usr/sbin/mklost+found",
            "/usr/sbin/mkswap", "/usr/sbin/swaplabel", "/usr/sbin/dmsetup", "/usr/sbin/dmstats",
            "/usr/sbin/fdisk", "/usr/sbin/sfdisk", "/usr/sbin/cfdisk", "/usr/sbin/isosize",
            f"{_LIB}/libcryptsetup.so*", f"{_LIB}/libdevmapper*", f"{_LIB}/e2fsprogs",
            "/usr/bin/systemd-repart", "/usr/bin/systemd-cryptenroll", f"{_LIB}/cryptsetup",
            "/usr/lib/systemd/systemd-cryptsetup", "/usr/lib/systemd/systemd-veritysetup",
            "/usr/lib/systemd/systemd-integritysetup", "/usr/lib/systemd/systemd-growfs",
            "/usr/lib/systemd/systemd-makefs", "/usr/lib/systemd/systemd-fsck*",
            "/usr/lib/systemd/systemd-pcrphase",
            "/usr/lib/systemd/systemd-measure", "/usr/lib/systemd/system/e2scrub*",
            "/etc/systemd/system/*/e2scrub*",
            "/usr/lib/systemd/system-generators/systemd-cryptsetup-generator",
            "/usr/lib/systemd/system-generators/systemd-veritysetup-generator",
            "/usr/lib/systemd/system-generators/systemd-integritysetup-generator",
        ),
    ),
    "systemd-network": StripRule(
        "systemd-networkd and what belongs to it",
        "the initrd has set the network up, and the node's agent renews its lease",
        (
            "/usr/lib/systemd/systemd-networkd*", "/usr/bin/networkctl", "/usr/lib/systemd/network/*",
            "/usr/lib/systemd/systemd-network-generator", "/usr/lib/systemd/system/systemd-network*",
            "/usr/share/polkit-1/actions/org.freedesktop.network1.policy",
        ),
    ),
    "systemd-desktop": StripRule(
        "parts of systemd for laptops and desktops: suspend, backlight, radio, settings by D-Bus",
        "a server in a rack is configured by its image",
        (
            "/usr/lib/systemd/systemd-hibernate-resume", "/usr/lib/systemd/systemd-sleep",
            "/usr/lib/systemd/systemd-backlight", "/usr/lib/systemd/systemd-rfkill",
            "/usr/lib/systemd/systemd-localed", "/usr/lib/systemd/systemd-timedated", "/usr/bin/localectl",
            "/usr/bin/timedatectl", "/usr/lib/systemd/systemd-xdg-*",
            "/usr/lib/systemd/system-generators/*hibernate*",
            "/usr/lib/systemd/user-generators/*xdg*", "/usr/lib/systemd/systemd-boot-check*",
            "/usr/share/polkit-1/actions/*", "/usr/bin/systemd-sysext", "/usr/lib/systemd/system/*hibernat*",
            "/usr/lib/systemd/system/*suspend*", "/usr/lib/systemd/system/systemd-localed*",
            "/usr/lib/systemd/system/systemd-timedated*", "/usr/lib/systemd/system/systemd-rfkill*",
            "/usr/lib/systemd/system/systemd-backlight*", "/usr/lib/systemd/system/*locale1.service",
            "/usr/lib/systemd/system/*timedate1.service", "/usr/lib/systemd/system/systemd-sysext*",
            "/usr/lib/systemd/system/systemd-boot-check*",
        ),
    ),
    "user-tools": StripRule(
        "programs that add, change and check accounts; `passwd` and logins stay",
        "accounts are made when the image is built",
        tuple(
            f"/usr/sbin/{name}"
            for name in (
                "useradd", "usermod", "userdel", "groupadd", "groupmod", "groupdel", "groupmems", "newusers",
                "chpasswd", "chgpasswd", "pwck", "grpck", "pwconv", "pwunconv", "grpconv", "grpunconv",
                "shadowconfig", "vipw", "vigr", "cppw", "cpgr", "addgroup", "adduser", "delgroup", "deluser",
                "update-passwd", "pam-auth-update", "faillock", "mkhomedir_helper",
            )
        )
        + tuple(f"/usr/bin/{name}" for name in
                ("chage", "chfn", "chsh", "gpasswd", "expiry", "faillog", "lastlog")),
    ),
    "network-extras": StripRule(
        "iproute2 and util-linux tools for InfiniBand, switches and hardware this is not for",
        "`ip`, `bridge`, `ss` and `tc` stay",
        tuple(f"/usr/sbin/{name}" for name in
              ("devlink", "tipc", "dcb", "vdpa", "genl", "arpd", "rtacct", "rtmon", "ldattach"))
        + tuple(f"/usr/bin/{name}" for name in ("rdma", "lnstat", "ctstat", "rtstat", "nstat", "routel")),
    ),
    "berkeley-db": StripRule(
        "plugins of PAM, SASL and apr-util that keep passwords and maps in Berkeley DB files",
        "nothing writes such files any more",
        (f"{_LIB}/security/pam_userdb.so", f"{_LIB}/sasl2/libsasldb.*", f"{_LIB}/apr-util-1/apr_dbm_db*"),
    ),
    "apache-modules": StripRule(
        "Apache's modules that are not enabled, and apr-util's drivers that only they use",
        "a2enmod is not run on a node: the recipe enables what is wanted",
        action="apache-modules",
    ),
    "apache-icons": StripRule(
        "pictures for Apache's listings of folders, its manual and sample pages",
        "a hosting server lists no folders",
        ("/usr/share/apache2/icons/*", "/usr/share/apache2/default-site"),
    ),
    "icu-data": StripRule(
        "ICU's data but for the character sets of the web",
        "libxml2, for PHP, only converts character sets by it; php-intl needs all of it",
        action="icu-data",
    ),
    "unused-libraries": StripRule(
        "shared libraries whose name stands in no program, library or configuration file that is left",
        "a library is loaded by its name, be it by the linker or by dlopen()",
        action="unused-libraries",
    ),
}  # fmt: skip
"""In the order in which they are applied: what takes programs away comes before what looks
at who needs what."""
