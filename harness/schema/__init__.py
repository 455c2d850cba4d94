"""The file formats: studies, prices and records as frozen pydantic models.

In: study.toml, prices.toml, value.toml and record JSON. Out: checked `Study`, `Assumptions` and `Record` objects, and the
cells that a study expands to.
"""
