"""The child process: its entry, the loop and the trial, and how a workload is found."""
