"""Keep tests from reading the user's price table and cache, from asking the real hub, and from each other's signals."""

import os
import signal

import pytest
from hypothesis import settings

os.environ["HARNESS_PRICES"] = "no-such-folder/prices.csv"
os.environ["HARNESS_CACHE"] = "no-such-folder/cache"
os.environ["HF_HUB_OFFLINE"] = "1"

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def restore_signals():
    """Put back the handlers that a command installs when a test runs it in this process, and takes away at its end."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
