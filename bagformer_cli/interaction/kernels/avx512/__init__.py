"""MaxSim from titles to images in AVX-512 registers; README.md here explains it."""
