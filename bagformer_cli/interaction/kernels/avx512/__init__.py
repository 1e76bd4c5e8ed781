"""MaxSim with AVX-512 instructions through numba."""
