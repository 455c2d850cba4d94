"""Seconds and bytes of steps that nobody ran, from shapes, batches and what is known of a machine.

Pure functions, like all that judges: no torch, no process, no clock. What a prediction does not know is in its interval.
"""
