"""The measured process: loads a model, trains and evaluates it, and measures each step.

In: a job from harness.execution, received by one rank's process. Out: messages (harness.execution.messages) on a pipe.
Only this package imports torch. No other package imports this one: processes start its modules by dotted name.
"""
