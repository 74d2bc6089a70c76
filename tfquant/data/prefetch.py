"""Parallel work in threads whose results are consumed in order."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Callable, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def ahead(
    pool: ThreadPoolExecutor, work: Callable[[_Item], _Result], items: Iterable[_Item], count: int
) -> Iterator[Callable[[], _Result]]:
    """Yields, for each item in order, a function that waits for the result of `work(item)`.

    Up to `count` items are processed ahead.
    """
    waiting: collections.deque[Future[_Result]] = collections.deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > count:
            yield waiting.popleft().result
    while waiting:
        yield waiting.popleft().result
