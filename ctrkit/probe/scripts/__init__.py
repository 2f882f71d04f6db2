"""What a probe decides about a script: its cells, its refusals, whether they train the same."""
