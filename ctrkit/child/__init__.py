"""The child process: its entry, the training loop, probe trials, and how it finds a workload."""
