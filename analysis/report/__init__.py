"""The report of a study: one HTML file that needs nothing else, readable on a phone and printed. Never imports torch."""
