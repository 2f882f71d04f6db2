"""Measurement: turns raw stamps into intervals, projections and findings."""
