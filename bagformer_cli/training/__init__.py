"""Training: objectives, gradients, the loop, runs and chains (docs/architecture.md walks it)."""
