"""The two towers and what lies on top of them: vision, text, pooling, fusion."""
