"""Plotly figures of the report's page.

They are drawn from priced cells, records and the comparisons of `harness.decision`. The modules return `Chart` objects;
`base.as_json` writes their JSON for the page's scripts.
"""
