"""Facts and counters of this computer: CPU, GPUs (NVML), control groups, cloud, load, energy. Imports no torch.

In: files of the kernel, NVML, the cloud's metadata service. Out: the parts of a record that describe the machine, and
findings about what would disturb a benchmark.
"""
