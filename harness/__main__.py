"""Run the console script `harness`, also as `python -m harness`."""

from __future__ import annotations

import signal
from typing import NoReturn


def main() -> NoReturn:
    """Load the command line and run it. Ctrl-C while it is loading ends the process at once, without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from harness.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
