"""Configurations that are known to hang or crash: facts, and pure rules with references."""
