"""Explains why a child hung or died: collects the scene, and names a cause."""
