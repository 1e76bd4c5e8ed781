"""Tools over dictionaries and titles: check, mine, compare, count."""
