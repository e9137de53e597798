"""How time is taken: everything once for its compilation, then in turn, round after round.

One round calls every library once, so that what slows the machine for a while slows all of them; ratios are taken within a
round and their median over the rounds. Each round begins with another library. A call that is over in no time is made again
until LEAST seconds have passed. A library that has used up its patience sits out the rounds that are left. Before each
turn there is a rest, because threads of the library before (OpenMP's, BLAS's) go on spinning for a while in wait of work.
A turn that hangs ends the run after LIMIT seconds and shows where; the problems before it are saved by then.
"""

from __future__ import annotations

import faulthandler
import gc
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.adapters.interface import Job

LEAST = 0.02  # seconds of calls in a turn
REST = 0.2  # seconds before a turn
LIMIT = 1800  # seconds of a turn


@dataclass(frozen=True)
class Turn:
    """One turn of a library. seconds: of a call, by the job's own clock where it has one; transfer: of its arrays to the
    device, None where nothing moves; result: of the last call."""

    seconds: float
    transfer: float | None
    result: Any


def turn(job: Job, least: float = LEAST) -> Turn:
    """Transfer, rest, and as many calls as fill `least` seconds, one at least."""
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    try:
        return _turn(job, least)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _turn(job: Job, least: float) -> Turn:
    began = time.perf_counter()
    there = job.transfer() if job.transfer else None
    transfer = time.perf_counter() - began if job.transfer else None
    gc.collect()
    time.sleep(REST)
    count, began = 0, time.perf_counter()
    while True:
        result = job.run(there)
        count += 1
        elapsed = time.perf_counter() - began
        if job.seconds:
            return Turn(job.seconds(result), transfer, result)
        if elapsed >= least:
            return Turn(elapsed / count, transfer, result)


def interleaved(jobs: Mapping[str, Job], repeats: int, patience: float) -> dict[str, list[Turn]]:
    """The turns of each job, without their results, one a round. patience: the seconds after which a job sits out; each has
    one turn at least."""
    turns: dict[str, list[Turn]] = {name: [] for name in jobs}
    spent = dict.fromkeys(jobs, 0.0)
    names = list(jobs)
    for number in range(repeats):
        first = number % max(1, len(names))
        for name in names[first:] + names[:first]:
            if number and spent[name] >= patience:
                continue
            began = time.perf_counter()
            taken = turn(jobs[name])
            turns[name].append(Turn(taken.seconds, taken.transfer, None))
            del taken
            spent[name] += time.perf_counter() - began
    return turns
