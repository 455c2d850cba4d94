"""Make the pictures, tables and figures of the documents anew from the shipped records.

Run: make figures                                   everything
     .venv/bin/python bench/make_figures.py texts   tables and figures alone, without a browser
"""

from __future__ import annotations

import sys

from figures import texts

texts.rewrite()
if sys.argv[1:] != ["texts"]:
    from figures import pictures  # it needs Playwright

    pictures.make()
