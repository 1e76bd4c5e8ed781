"""Write vectors and models in the formats of other programs."""
