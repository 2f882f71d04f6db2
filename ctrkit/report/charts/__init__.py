"""Charts of the HTML report: matplotlib draws SVG, which takes its colours from the page."""
