"""How MaxSim is computed. ``reference.py`` defines the result; the other modules are faster."""
