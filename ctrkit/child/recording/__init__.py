"""Measures a trial from the events of a training loop; it also runs in a script's own Python.

Standard library only, and Python 3.9. Start reading at `recorder.py`; the others are its parts.
"""
