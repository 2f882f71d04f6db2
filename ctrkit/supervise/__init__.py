"""Supervision: launch, watch, explain and clean up child processes."""
