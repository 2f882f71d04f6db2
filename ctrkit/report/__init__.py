"""Reports of run folders: terminal, Markdown and HTML."""
