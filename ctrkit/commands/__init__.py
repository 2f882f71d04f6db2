"""One command a file, each the whole way of it on a page."""
