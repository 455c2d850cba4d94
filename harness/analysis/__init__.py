"""Statistics of records: throughput with confidence intervals, steady state, MFU, accuracy, learning curves, warnings.

Input: records. Output: one `Summary` per configuration and machine. Everything here is pure: no files, processes or
devices, so a better statistic improves old records too.
"""
