"""Boots: which steps are allowed, and what silence makes of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeboot.inventory.boot import (
    ALLOWED,
    LIMIT_SECONDS,
    LOST_SECONDS,
    UP,
    Boot,
    Stage,
    WrongStep,
    continues,
    from_json,
    to_json,
)
from pxeboot.mac import Mac

MAC = Mac("52:54:00:00:00:01")


def at(stage: Stage, heard: float = 0.0) -> Boot:
    return Boot("00" * 8, MAC, stage, started=0.0, reached={stage: heard}, heard=heard)


def test_a_good_boot_goes_through_every_stage() -> None:
    boot = Boot.begin("ab" * 8, MAC, "x86 BIOS", now=0.0)
    path = ["address", "loader", "script", "kernel", "initrd", "network", "image", "root", "ready", "serving"]
    for second, name in enumerate(path, start=1):
        boot = boot.step(Stage(name), float(second))
    assert list(boot.reached.values()) == [float(second) for second in range(11)]


def test_the_table_has_every_stage() -> None:
    assert set(ALLOWED) == set(Stage)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("script", "address"),
        ("kernel", "script"),
        ("ready", "kernel"),
        ("image", "network"),
        ("rebooting", "ready"),
    ],
)
def test_a_wrong_step_raises(before: str, after: str) -> None:
    with pytest.raises(WrongStep, match=f"{before} is not followed by {after}"):
        at(Stage(before)).step(Stage(after), 1.0)


def test_a_stage_may_be_passed_unseen() -> None:
    assert at(Stage.DISCOVER).step(Stage.KERNEL, 1.0).stage is Stage.KERNEL


def test_a_step_clears_what_belonged_to_the_stage_before() -> None:
    boot = at(Stage.IMAGE).step(Stage.IMAGE, 1.0, done=5, total=10, detail="half")
    assert (boot.done, boot.total, boot.detail) == (5, 10, "half")
    boot = boot.step(Stage.ROOT, 2.0)
    assert (boot.done, boot.total, boot.detail) == (0, 0, "")


def test_a_failed_initrd_may_try_again_and_its_failure_is_gone() -> None:
    boot = at(Stage.IMAGE).step(Stage.FAILED, 1.0, failure="digest: expected a, got b")
    assert boot.failure_class == "digest"
    assert boot.step(Stage.IMAGE, 2.0).failure == ""


def test_the_first_time_of_a_stage_is_kept() -> None:
    boot = at(Stage.IMAGE, heard=3.0).step(Stage.FAILED, 4.0).step(Stage.IMAGE, 5.0)
    assert boot.reached[Stage.IMAGE] == 3.0


@pytest.mark.parametrize("stage", list(LIMIT_SECONDS))
def test_silence_past_the_limit_is_a_failure_that_says_what_is_missing(stage: Stage) -> None:
    limit = LIMIT_SECONDS[stage]
    assert at(stage).overdue(limit) is None
    verdict = at(stage).overdue(limit + 1)
    assert verdict is not None
    assert verdict[0] is Stage.FAILED
    assert verdict[1].startswith(f"{stage.value}: ")


@pytest.mark.parametrize("stage", [stage for stage in Stage if stage in UP])
def test_a_node_without_heartbeats_is_lost(stage: Stage) -> None:
    assert at(stage).overdue(LOST_SECONDS) is None
    assert at(stage).overdue(LOST_SECONDS + 1) == (Stage.LOST, "silent: no heartbeat for 36 s")


def test_who_has_failed_or_is_lost_stays_so() -> None:
    assert at(Stage.FAILED).overdue(1e9) is None
    assert at(Stage.LOST).overdue(1e9) is None


def test_firmware_that_repeats_its_question_is_in_the_same_boot() -> None:
    assert continues(at(Stage.DISCOVER), is_loader=False, now=4.0)
    assert continues(at(Stage.ADDRESS), is_loader=False, now=4.0)


def test_ipxe_that_the_firmware_has_loaded_is_in_the_same_boot() -> None:
    assert continues(at(Stage.LOADER), is_loader=True, now=4.0)
    assert not continues(at(Stage.LOADER), is_loader=False, now=4.0)


@pytest.mark.parametrize("stage", [Stage.SCRIPT, Stage.KERNEL, Stage.ROOT, Stage.READY, Stage.FAILED])
def test_who_was_further_has_begun_another_boot(stage: Stage) -> None:
    assert not continues(at(stage), is_loader=True, now=1.0)


def test_a_question_after_a_minute_of_silence_is_another_boot() -> None:
    assert not continues(at(Stage.DISCOVER), is_loader=False, now=61.0)
    assert not continues(None, is_loader=False, now=0.0)


@given(st.lists(st.sampled_from(list(Stage)), max_size=12))
def test_any_boot_survives_json(stages: list[Stage]) -> None:
    boot = Boot.begin("cd" * 8, MAC, "x64 UEFI", now=1.5)
    for stage in stages:
        if boot.may(stage):
            boot = boot.step(stage, boot.heard + 1, sent={"http kernel": 7})
    assert from_json(to_json(boot)) == boot
