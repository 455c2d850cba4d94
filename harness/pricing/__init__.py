"""Prices measured summaries: price table, hourly rates, cost formulas, energy.

In: `Summary` values and the user's `Assumptions`. Out: `Priced` cells in dollars. Nothing here measures or prints.
"""
