"""A package, and no namespace: a `tests` that some wheel leaves in site-packages would else be imported instead (gpuhunt 0.1.34 does)."""
