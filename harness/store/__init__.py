"""Files on disk: records, archives of records, saved models and checkpoints. Nothing is run and torch is not imported.

Records and files come in; paths and validated records go out.
"""
