import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .server import TOKEN, BootServer
from .shell import call, call_beside

FILES = ("report.sh",)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=80)
SETTINGS = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@SETTINGS
@given(TEXTS)
def test_any_text_becomes_a_json_string(tmp_path: Path, text: str) -> None:
    result = call(tmp_path, FILES, 'json_escape "$1"', text)
    assert json.loads(b'"' + result.stdout + b'"') == text


def test_quotes_backslashes_and_control_characters_are_escaped(tmp_path: Path) -> None:
    result = call(tmp_path, FILES, 'json_escape "$1"', 'a"b\\c\nd\te\x01\x7f')
    assert result.stdout == rb"a\"b\\c\u000ad\u0009e\u0001\u007f"


@pytest.mark.parametrize(
    ("arguments", "event"),
    [
        (["root"], {"stage": "root"}),
        (["failed", 'mount: "x"'], {"stage": "failed", "detail": 'mount: "x"'}),
        (["image", "", "0", "70"], {"stage": "image", "done": 0, "total": 70}),
        (["ready", "y" * 900], {"stage": "ready", "detail": "y" * 500}),
    ],
)
def test_events_hold_what_is_known(tmp_path: Path, arguments: list[str], event: dict[str, object]) -> None:
    assert json.loads(call(tmp_path, FILES, 'event_json "$@"', *arguments).stdout) == event


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"token": "abc"}', "abc"),
        ('{"command":"reboot", "token" : "a.b"}', "a.b"),
        ("{}", None),
        ('{"token": null}', None),
        ('"token"', None),
        ("<html>", None),
    ],
)
def test_a_string_is_read_from_an_answer(tmp_path: Path, text: str, value: str | None) -> None:
    result = call(tmp_path, FILES, 'json_string token "$1"', text)
    assert (result.returncode, result.stdout.decode()) == ((1, "") if value is None else (0, value))


def test_a_new_token_replaces_the_last_element_of_the_url(tmp_path: Path) -> None:
    url = tmp_path / "url"
    url.write_text("http://10.77.0.1/boot/old\n")
    call(tmp_path, FILES, 'adopt_token "$1"', '{"token": "new_-1"}')
    assert (url.read_text(), url.stat().st_mode & 0o777) == ("http://10.77.0.1/boot/new_-1\n", 0o600)


@pytest.mark.parametrize("answer", ['{"token": "a/../b"}', '{"token": "a b"}', '{"token": ""}', "{}", "oops"])
def test_an_answer_without_a_good_token_changes_nothing(tmp_path: Path, answer: str) -> None:
    (tmp_path / "url").write_text("http://10.77.0.1/boot/old\n")
    assert call(tmp_path, FILES, 'adopt_token "$1"', answer).returncode == 0
    assert (tmp_path / "url").read_text() == "http://10.77.0.1/boot/old\n"


def test_pauses_double_up_to_the_longest(tmp_path: Path) -> None:
    script = "for n in 1 2 3 4 7 8 100; do pause_after $n 5 300; done"
    assert call(tmp_path, FILES, script).stdout.split() == [b"5", b"10", b"20", b"40", b"300", b"300", b"300"]


def test_jitter_takes_off_at_most_half(tmp_path: Path) -> None:
    script = f"unset -f jittered; . {Path(__file__).parents[2]}/initrd/report.sh; "
    script += "for n in 1 2 3 4 5 6 7 8 9; do jittered 8; done"
    pauses = [float(line) for line in call(tmp_path, FILES, script).stdout.split()]
    assert all(4 <= pause <= 8 for pause in pauses)
    assert len(set(pauses)) > 1


async def test_a_report_reaches_the_server_and_takes_over_its_token(tmp_path: Path) -> None:
    async with BootServer(tokens=["second"]).serving() as server:
        (tmp_path / "url").write_text(server.url + "\n")
        script = "report network 'eth0 10.0.0.1/24' && report root"
        assert await call_beside(tmp_path, FILES, script) == (0, "")
    assert server.events == [{"stage": "network", "detail": "eth0 10.0.0.1/24"}, {"stage": "root"}]
    assert server.event_tokens == [TOKEN, "second"]


@pytest.mark.parametrize(("http", "status"), [(403, 3), (500, 1), (409, 1)])
async def test_a_refused_report_is_told_apart(tmp_path: Path, http: int, status: int) -> None:
    async with BootServer(refusals=[http]).serving() as server:
        (tmp_path / "url").write_text(server.url + "\n")
        assert await call_beside(tmp_path, FILES, "report root") == (status, "")


def test_without_a_server_a_report_fails_quietly(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("http://127.0.0.1:9/boot/x\n")
    result = call(tmp_path, FILES, "report root")
    assert (result.returncode, result.stdout, result.stderr) == (1, b"", b"")


def test_the_token_is_in_no_argument_list(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("http://10.77.0.1/boot/SECRET\n")
    curl = tmp_path / "curl"
    curl.write_text('#!/bin/sh\necho "$@" >"$PXEBOOT_RUN/arguments"\ncat >"$PXEBOOT_RUN/input"\n')
    curl.chmod(0o755)
    call(tmp_path, FILES, "report failed 'init: x'")
    assert "SECRET" not in (tmp_path / "arguments").read_text()
    assert (tmp_path / "input").read_text() == 'url = "http://10.77.0.1/boot/SECRET/event"\n'
