"""A least-recently-used cache bounded by weight: open files (one each) and arrays (their bytes)."""

import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Value = TypeVar("Value")


class LruCache(Generic[Value]):
    """Keeps the values used last, at most `max_weight` together; the newest is always kept.

    Args:
        max_weight: bound on the sum of the weights.
        weigh: the weight of a value.
        on_evict: called with each value that leaves to make room.
    """

    def __init__(
        self,
        max_weight: int,
        weigh: Callable[[Value], int],
        on_evict: Callable[[Value], None] = lambda value: None,
    ) -> None:
        self._max_weight = max_weight
        self._weigh = weigh
        self._on_evict = on_evict
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._weight = 0

    def __len__(self) -> int:
        return len(self._values)

    def get_or_make(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of this key, made and kept when it is not here."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = make()
        self._values[key] = value
        self._weight += self._weigh(value)
        self._make_room()
        return value

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Within it no value leaves, however much they weigh together."""
        most, self._max_weight = self._max_weight, sys.maxsize
        try:
            yield
        finally:
            self._max_weight = most
            self._make_room()

    def _make_room(self) -> None:
        while self._weight > self._max_weight and len(self._values) > 1:
            _, oldest = self._values.popitem(last=False)
            self._weight -= self._weigh(oldest)
            self._on_evict(oldest)
