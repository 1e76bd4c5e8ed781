"""Import datasets of other forms into MUGE form."""
