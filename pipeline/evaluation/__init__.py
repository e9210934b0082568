"""Evaluation: a generator, a data set and a protocol give metric rows; it knows no record folder."""
