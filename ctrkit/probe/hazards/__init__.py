"""Configurations known to hang or crash: facts, and pure rules on them with references."""
