"""Plotly figures of the report's page.

In: priced cells, records, and the comparisons of `harness.decision`. Out: `Chart` objects, and their JSON for the page's scripts.
"""
