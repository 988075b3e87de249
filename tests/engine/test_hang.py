"""Which of two processes hangs, and where, as both of them see it; whole runs are in tests/tools/test_ends.py."""

import os
import socket
import time

import pytest
from mmengine.dist import get_rank
from torch import distributed

from nfnet_mm.engine import hang
from nfnet_mm.errors import UserError


def loop(ends):
    while not ends:
        time.sleep(0.01)  # hangs


def watched_loop(late):
    """Process 1 loops until its watch would end it, or for so many seconds; what the watch says on each process."""
    ends, end = [], hang.end

    def note(line=None):
        ends.append(line)
        raise RuntimeError  # ends the thread

    hang.end = note
    distributed.barrier()
    try:
        watch = hang._Watch(1.0)
        watch.note(7)
        watch.start()
        if get_rank() == 1 and late is None:
            loop(ends)
        elif get_rank() == 1:
            for _ in range(late):
                time.sleep(0.1)
                watch.note(8)
        distributed.barrier()
        watch.ended.set()
    finally:
        hang.end = end
    return ends, os.getpid()


def test_the_one_that_loops_is_named_with_its_line(processes):
    (said, _), (other, pid) = processes(2).call(watched_loop, None)
    with open(__file__) as file:
        number = 1 + file.read().splitlines().index('        time.sleep(0.01)  # hangs')
    name = f'the run makes no progress, since process 1 ({socket.gethostname()}, pid {pid}) has been at'
    assert other == [None] and len(said) == 1
    assert said[0].startswith(f'{name} {__file__}:{number} (loop) for ') and said[0].endswith(' s, after iteration 7')


def test_one_that_is_late_and_goes_on_is_waited_for(processes):
    """The first process waits for twice the timeout."""
    assert [ends for ends, _ in processes(2).call(watched_loop, 20)] == [[], []]


@pytest.mark.parametrize('timeout', [0, -1, float('nan'), '1h'])
def test_timeouts_that_are_none(timeout):
    with pytest.raises(UserError, match=f'HangHook timeout={timeout!r} must be a positive finite number'):
        hang.HangHook(timeout)
