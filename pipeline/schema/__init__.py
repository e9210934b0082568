"""Validated config sections; importing this package never imports torch."""
