"""Run the command line in a Python that has nothing of what trains.

Usage: python without_torch.py COMMAND ...
"""

from __future__ import annotations

import sys

NOT_THERE = {"datasets", "huggingface_hub", "safetensors", "sklearn", "tokenizers", "torch", "transformers"}


class NotInstalled:
    """As if these packages were not there."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in NOT_THERE:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


if __name__ == "__main__":
    sys.meta_path.insert(0, NotInstalled())
    from harness.cli.main import main

    main()
