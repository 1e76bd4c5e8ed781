"""Speed benchmarks against reference implementations, each in the same run."""
