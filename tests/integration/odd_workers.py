"""Workers that misbehave; each runs in a process of its own in place of `harness.execution.runner.run_worker`."""

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
    """Print to stdout and stderr in every way, as libraries do."""
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
    """Start a process that would outlive the worker."""
    from harness.worker import main as worker

    train = worker.train

    def train_with_child(*args, **kwargs):
        subprocess.Popen(["sleep", "1000"])
        return train(*args, **kwargs)

    worker.train = train_with_child
    worker.run(job, pipe, stderr)


def leaves(job, pipe, stderr):
    """End without a result, as after an abort in a C library."""
    os._exit(7)


def raises(job, pipe, stderr):
    """Fail with a Python exception."""
    from harness.worker import main as worker

    def fail(*args, **kwargs):
        raise RuntimeError(f"no such layer in {os.path.expanduser('~')}/model\nsecond line")

    worker.load_model = fail
    worker.run(job, pipe, stderr)


def diverges_from_others(job, pipe, stderr):
    """Report a different checksum on every rank."""
    from harness.worker import main as worker

    checksum = worker.parameter_checksum
    worker.parameter_checksum = lambda model: checksum(model) + job.rank
    worker.run(job, pipe, stderr)


def nears_its_cap_on_rank_1(job, pipe, stderr):
    """Report memory near the cap on rank 1 alone."""
    from harness.worker import main as worker
    from harness.worker.train_state import FinishedTraining

    FinishedTraining.near_memory_cap = property(lambda training: training.context.distributed.rank == 1)
    worker.run(job, pipe, stderr)


def _at_every_batch(action, job, pipe, stderr):
    from harness.worker import main as worker
    from harness.worker import train_loop

    collate = train_loop.collate

    def odd_collate(*args, **kwargs):
        action()
        return collate(*args, **kwargs)

    train_loop.collate = odd_collate
    worker.run(job, pipe, stderr)


def _before_the_fourth_batch_of_rank_1(action, job, pipe, stderr):
    num_batches = 0

    def count():
        nonlocal num_batches
        num_batches += 1
        if job.rank == 1 and num_batches == 4:
            action()

    _at_every_batch(count, job, pipe, stderr)


def _spin():
    while True:
        pass


def _fail_to_allocate():
    raise MemoryError("made by a test")


def sleeps_forever(*arguments):
    """Let rank 1 sleep forever."""
    _before_the_fourth_batch_of_rank_1(lambda: time.sleep(100_000), *arguments)


def spins_forever(*arguments):
    """Let rank 1 loop forever."""
    _before_the_fourth_batch_of_rank_1(_spin, *arguments)


def stops_itself(*arguments):
    """Let rank 1 stop itself by SIGSTOP, as a debugger would."""
    _before_the_fourth_batch_of_rank_1(lambda: os.kill(os.getpid(), signal.SIGSTOP), *arguments)


def runs_out_of_memory(*arguments):
    """Raise MemoryError on rank 1."""
    _before_the_fourth_batch_of_rank_1(_fail_to_allocate, *arguments)


LEAK_BYTES = 3 * 2**20


def leaks(*arguments):
    """Leak 3 MiB at every batch."""
    leaked = []
    _at_every_batch(lambda: leaked.append(b"x" * LEAK_BYTES), *arguments)


def leaks_until_killed(*arguments):
    """Leak 8 MiB at every batch, with steps as long as those of a larger model."""
    leaked = []
    _at_every_batch(lambda: (leaked.append(b"x" * 2**23), time.sleep(0.06)), *arguments)


def asks_python_for_too_much(*arguments):
    """Make the interpreter fail to allocate."""
    _at_every_batch(lambda: bytearray(2**62), *arguments)


def maps_too_much(*arguments):
    """Make a mapping fail with ENOMEM."""
    _at_every_batch(lambda: mmap.mmap(-1, 2**60), *arguments)


def wraps_a_memory_error(*arguments):
    """Raise another error from a MemoryError, as libraries do."""

    def wrap():
        try:
            bytearray(2**62)
        except MemoryError as error:
            raise ValueError("the batch could not be built") from error

    _at_every_batch(wrap, *arguments)


def aborts_out_of_memory(*arguments):
    """Throw an uncaught C++ exception, as in a thread of autograd; it ends the process without a Python traceback."""
    _at_every_batch(ctypes.CDLL("libstdc++.so.6")._ZSt17__throw_bad_allocv, *arguments)


def asks_for_too_much(*arguments):
    """Make an allocation of torch fail in the first step."""

    def allocate():
        import torch

        limit = psutil.Process().memory_info().vms + 2**28
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        torch.empty(2**30, dtype=torch.uint8)

    _at_every_batch(allocate, *arguments)


def tells_its_environment(job, pipe, stderr):
    """Send this process's environment variables and CPUs."""
    import torch  # noqa: F401 - loads the OpenMP runtime, which binds this thread if a variable says so

    pipe.send({"variables": dict(os.environ), "cpus": sorted(os.sched_getaffinity(0))})


def rank_0_sleeps_and_rank_1_leaves(job, pipe, stderr):
    """Let rank 0 sleep forever before its fourth batch, and rank 1 end without a word a second later."""
    num_batches = 0

    def count():
        nonlocal num_batches
        num_batches += 1
        if num_batches == 4:
            time.sleep(1 if job.rank else 100_000)
            os._exit(7)

    _at_every_batch(count, job, pipe, stderr)
