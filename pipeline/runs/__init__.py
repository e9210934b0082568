"""The life of a run: everything that computes into a record."""
