"""Measurement: from raw stamps to intervals, projections and findings."""
