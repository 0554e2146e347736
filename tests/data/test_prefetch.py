"""Batches that wait on the device: how many, in which order, and what comes with their end."""

import itertools
import threading
import time

import pytest

from afd_jax.data.prefetch import prefetch_to_device


def test_prefetching_places_so_many_ahead_in_order():
    taken = []
    batches = prefetch_to_device((taken.append(i) or i for i in range(9)), lambda x: -x, size=3)
    end = time.monotonic() + 60
    while len(taken) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.3)
    assert taken == [0, 1, 2]
    assert list(batches) == [-i for i in range(9)]
    assert list(batches) == []


def test_prefetching_raises_in_place_and_stops():
    def broken():
        yield from range(3)
        raise OSError("the disk is gone")

    batches = prefetch_to_device(broken(), lambda x: x)
    assert list(itertools.islice(batches, 3)) == [0, 1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    with pytest.raises(ZeroDivisionError):
        next(prefetch_to_device(iter([0]), lambda x: 1 / x))


def test_prefetching_can_be_closed_at_any_time():
    ended = []

    def endless():
        try:
            yield from itertools.count()
        finally:
            ended.append(True)

    before = threading.active_count()
    batches = prefetch_to_device(endless(), lambda x: x)
    assert next(batches) == 0
    batches.close()
    assert ended and threading.active_count() == before and list(batches) == []
