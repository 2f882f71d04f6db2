"""Workloads: the protocol, and how a user's file or a plug-in becomes a workload."""
