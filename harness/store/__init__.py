"""Files on disk: records, archives of records, saved models and checkpoints. The package runs no cell and imports no torch.

Input: records and files. Output: paths and validated records.
"""
