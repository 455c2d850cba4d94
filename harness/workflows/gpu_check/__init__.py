"""`make gpu-check`: everything that one GPU can verify about the harness itself.

`checks` runs the cells, `verdicts` judges their records, and `__main__` prints one verdict per line.
"""
