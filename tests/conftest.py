"""Keep tests from reading the user's price table and cache."""

import os

os.environ["HARNESS_PRICES"] = "no-such-folder/prices.csv"
os.environ["HARNESS_CACHE"] = "no-such-folder/cache"
