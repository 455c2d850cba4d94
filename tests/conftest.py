"""No test reads the price table of whoever runs it, nor their cache."""

import os

os.environ["HARNESS_PRICES"] = "no-such-folder/prices.csv"
os.environ["HARNESS_CACHE"] = "no-such-folder/cache"
