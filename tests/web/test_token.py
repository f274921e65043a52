"""Boot tokens: only ours, only in time, any text refused in one way."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeboot.mac import Mac
from pxeboot.web.token import Claim, TokenRefusedError, sign, verify

SECRET = b"s" * 32
CLAIM = Claim("ab" * 8, Mac("52:54:00:00:00:01"), "cd" * 32, expires=1000)


def test_a_token_says_what_was_signed() -> None:
    token = sign(CLAIM, SECRET)
    assert verify(token, SECRET, 999.9) == CLAIM
    assert len(token) < 128
    assert all(letter.isalnum() or letter in "-_" for letter in token)


def test_an_old_token_is_refused() -> None:
    with pytest.raises(TokenRefusedError, match="expired"):
        verify(sign(CLAIM, SECRET), SECRET, 1000.0)


def test_another_servers_token_is_refused() -> None:
    with pytest.raises(TokenRefusedError, match="not ours"):
        verify(sign(CLAIM, b"t" * 32), SECRET, 0.0)


@given(st.integers(0, 89), st.sampled_from("abcXYZ019-_"))
def test_no_letter_can_be_changed(place: int, letter: str) -> None:
    token = sign(CLAIM, SECRET)
    place %= len(token)
    forged = token[:place] + letter + token[place + 1 :]
    with contextlib.suppress(TokenRefusedError):
        # The last letter carries bits that belong to no byte; whatever passes must say the same.
        assert verify(forged, SECRET, 0.0) == CLAIM
        assert forged == token or place == len(token) - 1


@given(st.text(max_size=150))
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(TokenRefusedError):
        verify(text, SECRET, 0.0)
