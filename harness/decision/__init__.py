"""Compares priced cells and chooses between them: comparisons, scaling, learning curves, recommendations, value.

In: `Priced` cells and the user's requirements and values. Out: frozen results that the report and the terminal show.
"""
