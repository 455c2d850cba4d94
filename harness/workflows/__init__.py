"""Workflows: what one command does from end to end, without printing.

Input: checked settings and records. Output: typed results for `harness.cli` and the pytest plugin.
"""
