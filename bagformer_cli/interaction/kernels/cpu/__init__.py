"""MaxSim on the CPU: tiles of dot products reduced in cache."""
