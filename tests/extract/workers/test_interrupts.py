"""Signals that end the program: put off, never lost, and handled as before in the end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from mvemo.extract.workers.interrupts import Interrupts

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Ended(Exception):
    """What the handler of SIGTERM raises here."""


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Handlers that raise, as a program's own do."""

    def end(number: int, frame: object) -> None:
        raise Ended

    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, end)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "error", "noted"),
    [(signal.SIGINT, KeyboardInterrupt, True), (signal.SIGTERM, Ended, False)],
)
def test_what_is_put_off_comes_with_the_release(
    number: signal.Signals, error: type[BaseException], noted: bool
) -> None:
    with Interrupts().handle() as interrupts:
        interrupts.defer()
        signal.raise_signal(number)
        assert interrupts.noted == noted
        with pytest.raises(error):
            interrupts.release()
        with pytest.raises(error):  # Not put off any more.
            signal.raise_signal(number)


def test_what_is_still_put_off_in_the_end_is_not_lost() -> None:
    def interrupted() -> None:
        with Interrupts().handle() as interrupts:
            interrupts.defer()
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Ended):
        interrupted()


def test_handlers_are_those_of_before_in_the_end() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with Interrupts().handle():
        assert all(signal.getsignal(n) is not b for n, b in zip(SIGNALS, before, strict=True))
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_handler_set_meanwhile_stays() -> None:
    with Interrupts().handle():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupts().handle() as interrupts:
        signal.raise_signal(signal.SIGINT)
        assert not interrupts.noted


def test_other_threads_change_no_handler() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    meanwhile = []

    def enter() -> None:
        with Interrupts().handle():
            meanwhile.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert meanwhile == before
