from pathlib import Path

import pytest

from pxeboot.errors import PxebootError
from pxeboot.image import strip as stripping
from pxeboot.image.rules import RULES
from pxeboot.image.strip import strip

from .trees import names, write

ELF = "\x7fELF "
LIB = "usr/lib/x86_64-linux-gnu"


async def test_each_rule_counts_what_it_saved_in_the_order_of_the_table(tmp_path: Path) -> None:
    write(tmp_path, "usr/share/doc/a", "usr/share/locale/b", "usr/bin/c", text="12345")
    assert await strip(tmp_path, ["locales", "documentation"], tmp_path) == [
        ("documentation", 5),
        ("locales", 5),
    ]
    assert names(tmp_path) == {"usr/bin/c"}


async def test_every_rule_does_nothing_to_an_empty_tree(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "usr/bin").mkdir(parents=True)
    assert await strip(tree, RULES, tmp_path) == [(name, 0) for name in RULES]


def test_every_rule_has_something_to_do_and_says_why() -> None:
    assert all((rule.paths or rule.action) and rule.what and rule.why for rule in RULES.values())
    assert {rule.action for rule in RULES.values() if rule.action} == set(stripping._ACTIONS)


async def test_with_perl_go_the_programs_written_in_it(tmp_path: Path) -> None:
    write(tmp_path, "usr/bin/perl5.36", "usr/share/perl5/x.pm", "usr/bin/sh")
    write(tmp_path, "usr/sbin/a2enmod", text="#!/usr/bin/perl -w")
    write(tmp_path, "usr/bin/which", text="#!/bin/sh\n# not perl")
    await strip(tmp_path, ["perl"], tmp_path)
    assert names(tmp_path) == {"usr/bin/sh", "usr/bin/which"}


async def test_apache_keeps_the_modules_that_are_loaded(tmp_path: Path) -> None:
    modules = "usr/lib/apache2/modules"
    write(
        tmp_path, *(f"{modules}/mod_{name}.so" for name in ("dir", "md", "ldap")), f"{modules}/libphp8.2.so"
    )
    write(tmp_path, f"{LIB}/apr-util-1/apr_ldap-1.so", f"{LIB}/apr-util-1/apr_dbd_sqlite3.so")
    line = "LoadModule {0}_module /usr/lib/apache2/modules/mod_{0}.so\n"
    write(tmp_path, "etc/apache2/mods-available/dir.load", text=line.format("dir"))
    write(tmp_path, "etc/apache2/mods-available/md.load", text=line.format("md"))
    write(tmp_path, "etc/apache2/apache2.conf", text=line.format("ldap"))
    (tmp_path / "etc/apache2/mods-enabled").mkdir()
    (tmp_path / "etc/apache2/mods-enabled/dir.load").symlink_to("../mods-available/dir.load")
    (tmp_path / "etc/apache2/mods-enabled/php.load").symlink_to("/etc/apache2/mods-available/php.load")
    write(
        tmp_path,
        "etc/apache2/mods-available/php.load",
        text=f"LoadModule php_module /{modules}/libphp8.2.so\n",
    )
    await strip(tmp_path, ["apache-modules"], tmp_path)
    left = {Path(name).name for name in names(tmp_path) if name.endswith(".so")}
    assert left == {"mod_dir.so", "libphp8.2.so", "mod_ldap.so", "apr_ldap-1.so"}


async def test_libraries_that_nothing_names_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "usr/bin/server", text=f"{ELF} libone.so.1")
    write(tmp_path, f"{LIB}/libone.so.1.2", text=f"{ELF} dlopen libtwo.so.2")
    (tmp_path / LIB / "libone.so.1").symlink_to("libone.so.1.2")
    write(tmp_path, f"{LIB}/libtwo.so.2", f"{LIB}/libplugged.so.3", f"{LIB}/libnss_dns.so.2", text=ELF)
    write(tmp_path, f"{LIB}/libalone.so.1", text=f"{ELF} libalone.so.1 libneedsme.so.4")
    write(tmp_path, f"{LIB}/libneedsme.so.4", text=ELF)
    write(tmp_path, f"{LIB}/plugins/libp.so", text=f"{ELF} libplugged.so.3")
    write(tmp_path, f"{LIB}/libconfigured.so.5", text=ELF)
    write(tmp_path, "etc/server.conf", text="LoadFile libconfigured.so.5")
    write(tmp_path, "usr/share/list", text="libalone.so.1")
    await strip(tmp_path, ["unused-libraries"], tmp_path)
    left = {Path(name).name for name in names(tmp_path) if name.startswith(LIB)}
    assert left == {"libone.so.1.2", "libone.so.1", "libtwo.so.2", "libp.so", "libplugged.so.3",
                    "libconfigured.so.5", "libnss_dns.so.2"}  # fmt: skip


async def test_icu_data_is_not_cut_where_something_wants_all_of_it(tmp_path: Path) -> None:
    write(tmp_path, f"{LIB}/libicudata.so.72.1", f"{LIB}/libicui18n.so.72.1", text=f"{ELF} libicui18n.so.72")
    write(tmp_path, "usr/lib/php/intl.so", text=f"{ELF} libicui18n.so.72")
    with pytest.raises(PxebootError, match=r"icu-data would break /usr/lib/php/intl.so") as caught:
        await strip(tmp_path, ["icu-data"], tmp_path)
    assert "icu-data" in caught.value.hint
