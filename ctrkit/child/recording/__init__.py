"""What a trial measured, made of the events of a training loop; a script's own Python runs it.

Standard library only, and Python 3.9. `recorder.py` tells the story, the others are its parts.
"""
