"""The probe: which cells to try, in which order, and what to recommend."""
