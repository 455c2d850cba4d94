"""Run cells in processes of their own: preparation, heartbeats, memory caps, time-outs, sweeps and resuming.

Input: cells. Output: records. The parent process never imports torch.
"""
