"""Figures of a study: pure functions of recorded runs, drawn in one style, as vector PDF and PNG. Never imports torch."""
