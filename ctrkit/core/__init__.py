"""What parent and child share: specs, records, files of the run folder, units, errors."""
