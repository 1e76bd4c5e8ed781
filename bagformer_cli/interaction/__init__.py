"""Lists of vectors and the late interaction (MaxSim) between them."""
