"""Workloads: the protocol, MDAF on Taobao, and a user's own file."""
