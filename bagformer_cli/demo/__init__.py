"""The built-in demo dataset: generated images of products with Chinese titles, in MUGE form."""

from bagformer_cli.demo.benchmark import write_benchmark
from bagformer_cli.demo.generate import DRAWN_IMAGE, draw_once, write_demo

__all__ = ["DRAWN_IMAGE", "draw_once", "write_benchmark", "write_demo"]
