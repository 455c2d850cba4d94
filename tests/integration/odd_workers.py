"""Workers that misbehave: each is started in place of `harness.execution.runner.run_worker`, in a process of its own."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import subprocess
import sys
import time

import psutil

SECRET = "hf_abcdefghijklmnop"  # made up


def noisy(job, pipe, stderr):
    """Prints on every way out, as libraries do, before and while it trains."""
    from harness.worker import main as worker

    train = worker.train

    def train_noisily(*args, **kwargs):
        print("\x80\x04 no pickle, but printed to stdout" * 2000)
        os.write(1, b"\x00\xff\xfe from C\n" * 2000)
        print(f"login {SECRET} at 10.1.2.3 from {os.path.expanduser('~')}/secrets.txt", file=sys.stderr)
        return train(*args, **kwargs)

    worker.train = train_noisily
    worker.run(job, pipe, stderr)


def with_child(job, pipe, stderr):
    """Starts a process of its own that would outlive it."""
    from harness.worker import main as worker

    train = worker.train

    def train_with_child(*args, **kwargs):
        subprocess.Popen(["sleep", "1000"])
        return train(*args, **kwargs)

    worker.train = train_with_child
    worker.run(job, pipe, stderr)


def leaves(job, pipe, stderr):
    """Ends without a word, as a C library's abort does."""
    os._exit(7)


def raises(job, pipe, stderr):
    """Fails in its own code."""
    from harness.worker import main as worker

    def fail(*args, **kwargs):
        raise RuntimeError(f"no such layer in {os.path.expanduser('~')}/model\nsecond line")

    worker.build_model = fail
    worker.run(job, pipe, stderr)


def diverges_from_others(job, pipe, stderr):
    """A rank whose parameters are its own."""
    from harness.worker import main as worker

    checksum = worker.parameter_checksum
    worker.parameter_checksum = lambda model: checksum(model) + job.rank
    worker.run(job, pipe, stderr)


def _before_the_fourth_batch_of_rank_1(do, job, pipe, stderr):
    import harness.worker.train_loop
    from harness.worker import main as worker

    collate, calls = harness.worker.train_loop.collate, []

    def odd_collate(*args, **kwargs):
        calls.append(None)
        if job.rank == 1 and len(calls) == 4:
            do()
        return collate(*args, **kwargs)

    harness.worker.train_loop.collate = odd_collate
    worker.run(job, pipe, stderr)


def _spin():
    while True:
        pass


def _fail_to_allocate():
    raise MemoryError("made by a test")


def sleeps_for_ever(*told):
    """Its rank 1 waits for what never comes."""
    _before_the_fourth_batch_of_rank_1(lambda: time.sleep(100_000), *told)


def spins_for_ever(*told):
    """Its rank 1 is busy with nothing."""
    _before_the_fourth_batch_of_rank_1(_spin, *told)


def stops_itself(*told):
    """Its rank 1 is stopped, as by a debugger."""
    _before_the_fourth_batch_of_rank_1(lambda: os.kill(os.getpid(), signal.SIGSTOP), *told)


def runs_out_of_memory(*told):
    """Its rank 1 gets no memory."""
    _before_the_fourth_batch_of_rank_1(_fail_to_allocate, *told)


LEAK_BYTES = 3 * 2**20


def _at_every_batch(do, job, pipe, stderr):
    import harness.worker.train_loop
    from harness.worker import main as worker

    collate = harness.worker.train_loop.collate

    def odd_collate(*args, **kwargs):
        do()
        return collate(*args, **kwargs)

    harness.worker.train_loop.collate = odd_collate
    worker.run(job, pipe, stderr)


def leaks(*told):
    """Keeps 3 MiB of every batch."""
    kept = []
    _at_every_batch(lambda: kept.append(b"x" * LEAK_BYTES), *told)


def leaks_until_killed(*told):
    """Keeps 8 MiB of every batch, each of which takes as long as one of a larger model."""
    kept = []
    _at_every_batch(lambda: (kept.append(b"x" * 2**23), time.sleep(0.06)), *told)


def asks_python_for_too_much(*told):
    """The interpreter is refused."""
    _at_every_batch(lambda: bytearray(2**62), *told)


def maps_too_much(*told):
    """The kernel refuses a mapping: ENOMEM."""
    _at_every_batch(lambda: mmap.mmap(-1, 2**60), *told)


def wraps_a_shortage(*told):
    """A library turns the shortage into an error of its own."""

    def wrap():
        try:
            bytearray(2**62)
        except MemoryError as error:
            raise ValueError("the batch could not be built") from error

    _at_every_batch(wrap, *told)


def aborts_for_want_of_memory(*told):
    """C++ throws where nobody catches it, as in a thread of autograd's: the process is gone without a word of Python's."""
    _at_every_batch(ctypes.CDLL("libstdc++.so.6")._ZSt17__throw_bad_allocv, *told)


def asks_for_too_much(job, pipe, stderr):
    """Torch is refused an allocation in its first step: the rest of the process has what it needs."""
    import torch

    import harness.worker.train_loop
    from harness.worker import main as worker

    def odd_collate(*args, **kwargs):
        limit = psutil.Process().memory_info().vms + 2**28
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        torch.empty(2**30, dtype=torch.uint8)

    harness.worker.train_loop.collate = odd_collate
    worker.run(job, pipe, stderr)
