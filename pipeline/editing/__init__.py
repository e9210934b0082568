"""Editing tasks: what the paper shows as pictures, as functions on generators, as numbers and as grids."""
