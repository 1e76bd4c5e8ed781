"""Index a catalogue and search it, by text, with a filter, and by an image.

    python examples/search_catalogue.py [CATALOGUE]

CATALOGUE is a table with the columns id, image and title, or a folder of images. Needs
runs/example, from train_and_evaluate.py; without a catalogue, its drawn products are indexed.
"""

from __future__ import annotations

import shutil
import sys

from bagformer_cli import load
from bagformer_cli.data.catalogue.catalogue import open_catalogue
from bagformer_cli.index.build import add_catalogue
from bagformer_cli.index.encode import EncodeOptions, layout_of
from bagformer_cli.index.engines import create_engine
from bagformer_cli.index.search import Index


def main() -> None:
    """Build an index and search it."""
    model = load("runs/example").model
    if len(sys.argv) > 1:
        catalogue = open_catalogue(sys.argv[1])
    else:
        catalogue = open_catalogue("data/demo", split="valid")

    shutil.rmtree("example-index", ignore_errors=True)
    options = EncodeOptions(dtype="int8")
    layout = layout_of(model, options, catalogue.attributes, "runs/example/best")
    engine = create_engine("example-index", layout)  # or s3://…, qdrant://…
    added = add_catalogue(engine, model, catalogue, options)
    print(f"{added.rows} products")

    index = Index(engine, model)
    for hit in index.search("红色连衣裙", k=3):
        print(f"{hit.score:.3f}  {hit.id}  {hit.title}  {hit.attributes}")
    if "colour" in catalogue.attributes:  # any column of the catalogue
        print([hit.id for hit in index.search("连衣裙", where="colour = '红色'", k=3)])
    if len(sys.argv) == 1:
        print([hit.id for hit in index.search(image="example.png", k=3)])


if __name__ == "__main__":
    main()
