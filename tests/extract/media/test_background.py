"""Calls beside a decoder: all of them, in order, and their errors."""

from __future__ import annotations

import threading

import pytest

from mvemo.extract.media.background import BackgroundQueue


@pytest.mark.parametrize("threaded", [True, False])
def test_calls_are_done_in_order(threaded: bool) -> None:
    done: list[int] = []
    with BackgroundQueue(threaded=threaded) as background:
        for i in range(3 * BackgroundQueue.MAX_WAITING):
            background.submit(done.append, i)
    assert done == list(range(3 * BackgroundQueue.MAX_WAITING))


@pytest.mark.parametrize("threaded", [True, False])
def test_a_second_thread_does_them_where_there_is_one(threaded: bool) -> None:
    threads: list[int] = []
    with BackgroundQueue(threaded=threaded) as background:
        background.submit(lambda: threads.append(threading.get_ident()))
    assert (threads[0] != threading.get_ident()) is threaded


@pytest.mark.parametrize("threaded", [True, False])
def test_the_error_of_a_call_is_raised(threaded: bool) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        BackgroundQueue(threaded=threaded) as background,
    ):
        background.submit(divmod, 1, 0)


def test_an_error_of_the_decoder_is_not_hidden_by_that_of_a_call() -> None:
    def decode() -> None:
        with BackgroundQueue() as background:
            background.submit(divmod, 1, 0)
            raise KeyError("decoder")

    with pytest.raises(KeyError, match="decoder"):
        decode()
