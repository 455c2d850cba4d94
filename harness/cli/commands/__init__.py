"""The commands, one module per group; `harness.cli.main` registers them."""
