"""Studies: factors, levels, design and seeds -> a plan of runs -> what of it is missing is run. Never imports torch."""
