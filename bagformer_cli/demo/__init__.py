"""The built-in dataset: drawn products with Chinese titles, in MUGE form.

``write_demo`` draws it, ``read_attributes`` tells what is in each picture and what each query
names, ``accuracy_by_attribute`` what a ranking gets right of it, ``calibration`` how hard it is.
"""

from bagformer_cli.demo.attributes import (
    Attributes,
    Thing,
    accuracy_by_attribute,
    answers,
    read_attributes,
    read_header,
)
from bagformer_cli.demo.generate import write_demo

__all__ = [
    "Attributes",
    "Thing",
    "accuracy_by_attribute",
    "answers",
    "read_attributes",
    "read_header",
    "write_demo",
]
