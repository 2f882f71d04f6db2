"""The training of MDAF: its loss, optimizers and metrics."""
