"""Accuracy of every normalisation and of every fused or folded kernel: float32 against float64."""
