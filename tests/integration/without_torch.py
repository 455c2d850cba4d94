"""Run the command line without torch and the other packages that only training needs.

Usage: python without_torch.py COMMAND ...
"""

from __future__ import annotations

import sys

HIDDEN_PACKAGES = {"datasets", "huggingface_hub", "safetensors", "sklearn", "tokenizers", "torch", "transformers"}


class HidePackages:
    """Import hook that hides packages."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN_PACKAGES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


if __name__ == "__main__":
    sys.meta_path.insert(0, HidePackages())
    from harness.cli.main import main

    main()
