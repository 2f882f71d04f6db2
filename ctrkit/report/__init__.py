"""Reports of run folders: terminal and Markdown."""
