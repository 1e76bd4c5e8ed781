"""Models of other libraries, all with the same two methods; see :mod:`.protocol`."""
