import threading
import time

import pytest

from spec_store.stores.streaming import ordered_map


def test_results_come_in_order_whatever_the_threads_do():
    def slow_when_even(x):
        time.sleep(0.002 * (x % 2 == 0))
        return x

    assert list(ordered_map(slow_when_even, range(50), workers=4)) == list(range(50))


def test_no_more_items_are_held_than_workers_and_one():
    taken, done = [], []

    def items():
        for i in range(20):
            taken.append(i)
            yield i

    for x in ordered_map(lambda x: x, items(), workers=2, ahead=1):
        done.append(x)
        assert len(taken) - len(done) <= 3


def test_the_first_error_ends_it_and_no_thread_is_left():
    before = threading.active_count()

    def fail_at_five(x):
        if x == 5:
            raise ValueError("five")
        return x

    seen = []
    with pytest.raises(ValueError, match="five"):
        seen.extend(ordered_map(fail_at_five, range(100)))
    assert threading.active_count() == before


def test_an_error_of_the_items_comes_through():
    def items():
        yield 1
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        list(ordered_map(lambda x: x, items()))


def test_stopping_early_leaves_no_thread():
    before = threading.active_count()
    stream = ordered_map(lambda x: x, range(1000))
    assert next(stream) == 0
    stream.close()
    assert threading.active_count() == before
