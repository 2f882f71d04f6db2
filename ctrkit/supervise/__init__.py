"""Supervision: launches, watches, explains and cleans up child processes."""
