"""Run cells in processes of their own: preparation, heartbeats, memory caps, time-outs, sweeps and resuming.

Cells come in; records go out. The parent process never imports torch.
"""
