"""Parallel work in threads whose results are consumed in order."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Callable


def ahead(pool: ThreadPoolExecutor, work: Callable, items: Iterable, count: int) -> Iterator:
    """Yields, for each item in order, a function that waits for the result of `work(item)`.

    Up to `count` items are processed ahead.
    """
    waiting = collections.deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > count:
            yield waiting.popleft().result
    while waiting:
        yield waiting.popleft().result
