"""Workers that misbehave: each is started in place of `harness.runner._enter_worker`, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

SECRET = "hf_abcdefghijklmnop"  # made up


def noisy(job, pipe, stderr):
    """Prints on every way out, as libraries do, before and while it trains."""
    from harness import worker

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
    from harness import worker

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
    from harness import worker

    def fail(*args, **kwargs):
        raise RuntimeError(f"no such layer in {os.path.expanduser('~')}/model\nsecond line")

    worker.build_model = fail
    worker.run(job, pipe, stderr)


def diverges_from_others(job, pipe, stderr):
    """A rank whose parameters are its own."""
    from harness import worker

    checksum = worker._checksum
    worker._checksum = lambda model: checksum(model) + job.rank
    worker.run(job, pipe, stderr)
