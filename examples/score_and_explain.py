"""Score an image against titles, and show which part of a title earns which part of the score.

    python examples/score_and_explain.py [IMAGE TITLE...]

Needs runs/example, from train_and_evaluate.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bagformer_cli import load
from bagformer_cli.data.muge import iter_images, iter_queries


def main() -> None:
    """Score and explain one image."""
    retriever = load("runs/example")
    if len(sys.argv) > 2:
        image, titles = Path(sys.argv[1]), sys.argv[2:]
    else:  # the first product of the drawn validation split, its query and two others
        queries = list(iter_queries("data/demo/MR_valid_queries.jsonl"))
        images = dict(iter_images("data/demo/MR_valid_imgs.tsv"))
        image = Path("example.png")
        image.write_bytes(images[queries[0].item_ids[0]])
        titles = [query.text for query in queries[:3]]

    # Each side is a short list of vectors; a score is one MaxSim between two such lists.
    images_vectors, title_vectors = retriever.encode_images([image]), retriever.encode_texts(titles)
    scores = retriever.score(images_vectors, title_vectors)
    for title, score in zip(titles, scores.t2i_mean[:, 0].tolist(), strict=True):
        print(f"{score:.3f}  {title}")

    # The parts add up to the score; `cell` is the place in the image that a bag fits best.
    explained = retriever.explain(image, titles[0])[0]
    print(f"\n{explained.title}: {explained.t2i:.3f}")
    for part in explained.parts:
        where = "the whole image"
        if part.cell is not None:
            where = f"row {part.cell.row}, column {part.cell.column}"
        print(f"  {part.score:.3f}  {part.text}  ({where})")


if __name__ == "__main__":
    main()
