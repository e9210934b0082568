"""The one list of kernels that are held to float64: of the accuracy table and of the tests."""

from pipeline.bench.accuracy.fused import FUSED
from pipeline.bench.accuracy.measure import Kernel
from pipeline.bench.accuracy.normalisations import NORMALISATIONS

KERNELS: tuple[Kernel, ...] = (*NORMALISATIONS, *FUSED)
