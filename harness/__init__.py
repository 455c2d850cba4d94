"""A cost and performance benchmarking harness for fine-tuning BERT."""

__version__ = "0.1.0"
