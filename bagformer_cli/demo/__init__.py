"""The built-in demo dataset: generated images of products with Chinese titles, in MUGE form."""

from bagformer_cli.demo.generate import draw_once, write_demo

__all__ = ["draw_once", "write_demo"]
