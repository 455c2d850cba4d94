"""A study on many machines at once: which node runs which cell, and files that start a cluster in a cloud.

Input: cells with predicted seconds, nodes as they come and go. Output: placements. No other package imports ray; the scheduler is pure.
"""
