"""Workloads: the protocol, and how a user's own file or a plug-in becomes one."""
