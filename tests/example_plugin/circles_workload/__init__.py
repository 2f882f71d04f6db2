"""Which points lie in a circle: a small workload for ctrkit."""
