"""Sweeps: a search space over config keys, a sampler, a pruner and a storage -> runs -> the best overrides."""
