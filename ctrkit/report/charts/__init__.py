"""Charts of the HTML report: matplotlib draws them as SVG that takes its colours from the page."""
