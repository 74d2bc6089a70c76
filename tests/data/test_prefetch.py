"""Tests parallel work: order and number of pending items."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tfquant.data.prefetch import ahead


def test_results_are_in_order_and_the_number_of_pending_items_is_limited():
    taken = []

    def items():
        for i in range(20):
            taken.append(i)
            yield i

    later = threading.Event()

    def work(i):
        if i == 0:
            assert later.wait(10)  # the first is the last to be done
        elif i == 3:
            later.set()
        return i * i

    with ThreadPoolExecutor(4) as pool:
        for i, wait in enumerate(ahead(pool, work, items(), 3)):
            assert len(taken) == min(i + 4, 20)
            assert wait() == i * i
    assert i == 19


def test_an_error_is_raised_when_its_result_is_requested():
    with ThreadPoolExecutor(2) as pool:
        first, second = ahead(pool, lambda x: 1 / x, [0, 1], 2)
        with pytest.raises(ZeroDivisionError):
            first()
        assert second() == 1
