"""Figures of a study: pure functions of recorded runs, drawn in one style, as PDF and PNG. Never imports torch."""
