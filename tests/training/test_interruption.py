"""Interruptions wait until a block is done; a second one does not."""

import os
import signal
import threading

import pytest

from jawloc.training.interruption import interruptions_held

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


class Ended(Exception):
    """What this test's handler raises, with the signal's number."""


@pytest.fixture(autouse=True)
def handlers():
    def end(number, _):
        raise Ended(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, end) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_one_is_told_and_comes_after_the_block(number):
    done, said = [], []
    with (
        pytest.raises(Ended, match=str(int(number))),
        interruptions_held(say=lambda: said.append("stopping")) as has_come,
    ):
        assert not has_come()
        signal.raise_signal(number)
        assert has_come()
        done.append(True)
    assert (done, said) == ([True], ["stopping"])


def test_the_second_one_comes_at_once_and_only_it():
    with pytest.raises(Ended, match=str(int(signal.SIGTERM))), interruptions_held():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("it went on")


def test_an_error_in_the_block_goes_first_and_the_handlers_are_back():
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError, match="own"), interruptions_held():
        raise RuntimeError("own")
    assert signal.getsignal(signal.SIGINT) is handler


def test_what_is_ignored_stays_so():
    """As nohup asks for."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interruptions_held() as has_come:
        signal.raise_signal(signal.SIGHUP)
        assert not has_come()


def test_in_another_thread_nothing_is_held():
    seen = []

    def work():
        with interruptions_held() as has_come:
            seen.append(has_come())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
