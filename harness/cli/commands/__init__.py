"""The commands of the command line, a module for each kind; `cli.py` puts them together."""
