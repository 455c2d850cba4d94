"""Facts and counters of this computer: CPU, GPUs (NVML), control groups, cloud, load, energy. Imports no torch.

Input: the kernel's files, NVML, and the cloud's metadata service. Output: the parts of a record that describe the
machine, and findings about what would disturb a benchmark.
"""
