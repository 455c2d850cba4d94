"""Keep tests from reading the user's price table and cache, and from asking the real hub."""

import os

os.environ["HARNESS_PRICES"] = "no-such-folder/prices.csv"
os.environ["HARNESS_CACHE"] = "no-such-folder/cache"
os.environ["HF_HUB_OFFLINE"] = "1"
