"""MaxSim implementations: plain torch (the reference), CPU tiles, AVX-512, CUDA."""
