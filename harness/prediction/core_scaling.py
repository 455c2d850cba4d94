"""Speed of a CPU machine from that of another one of its family, with another number of logical CPUs.

Samples/s grow with the number of CPUs to a power below 1: operators that don't split well, and memory that all cores share.
The shipped records have one such pair: a slice of 1 and slices of 2 cores of one EPYC, in which eight ratios of samples/s
give powers from 0.53 to 0.73, 0.64 on average. Models of larger products scale better, more cores scale worse, so that the
standard deviation is assumed twice as large as theirs.
"""

from __future__ import annotations

import math
import re

from harness.prediction.uncertain_time import ErrorFactor

POWER, POWER_SD = 0.64, 0.15
_AWS_SIZE = re.compile(r"\.(metal-)?\w*$")
_GOOGLE_SIZE = re.compile(r"-\d+(\+.*)?$")
_AZURE_SIZE = re.compile(r"(?<=_[A-Z])\d+")


def cpu_family(instance_type: str) -> str:
    """Return an instance type's name without its size: `m7i` of `m7i.2xlarge`, `c3-standard` of `c3-standard-8`.

    Types of one family have the same CPU, of which they get more or less.
    """
    for size in (_AWS_SIZE, _GOOGLE_SIZE):
        if size.search(instance_type):
            return size.sub("", instance_type)
    return _AZURE_SIZE.sub("", instance_type)


def scaled_by_cores(num_measured: int, num_cpus: int) -> tuple[float, ErrorFactor]:
    """Return by which ratio the seconds change with the number of logical CPUs, and how uncertain that is.

    Args:
        num_measured: Logical CPUs of the measured machine.
        num_cpus: Logical CPUs of the other machine of its family.
    """
    log_ratio = math.log(num_cpus / num_measured)
    reason = f"measured on {num_measured} logical CPUs, scaled to {num_cpus}"
    return math.exp(-POWER * log_ratio), ErrorFactor("core scaling", POWER_SD * abs(log_ratio), reason=reason)
