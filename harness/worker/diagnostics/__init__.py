"""Extra measurements after training: memory breakdown, FLOPs, peak FLOP/s, communication, profiler, calibration.

In: a finished training (`FinishedTraining`). Out: parts of its record. None of the extra steps counts in the training figures.
"""
