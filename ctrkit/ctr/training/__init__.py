"""What MDAF's task is made of: its loss, optimizers and metrics."""
