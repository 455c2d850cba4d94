"""The measured process: loads a model, trains and evaluates it, and measures each step.

In: a job from harness.execution, received by one rank's process. Out: messages (harness.execution.messages) on a pipe.
This is the only package that imports torch, and no other package imports it: processes start its modules by dotted name.
"""
