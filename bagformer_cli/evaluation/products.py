"""Read which product each image shows, so that several images of one product count once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.data.product_ids import read_ids
from bagformer_cli.errors import DataError, cannot_read, listed
from bagformer_cli.evaluation.metrics import group_numbers
from bagformer_cli.messages import tr
from bagformer_cli.opening import read_regular

MOST_BYTES = 1 << 30  # of the file


def read_products(path: str | Path, image_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Read the product of each image and number the products of a pool.

    Args:
        path: A TSV of ``image id <tab> product``, UTF-8, one image per line, or the ``ids.jsonl``
            of ``xmr data import``. Images that are not in the pool are ignored.
        image_ids: [N] ids of the pool. An image that the file lacks is a separate product.

    Returns:
        [N] product numbers from 0.

    Raises:
        InputError: The file cannot be read.
        DataError: A line has another form, an image is listed with two products, or no image of
            the pool is listed.
    """
    path = Path(path)
    if path.suffix.lower() == ".jsonl":
        product = {number: name.product for number, name in read_ids(path).images.items()}
    else:
        product = _read_tsv(path)
    if product.keys().isdisjoint(image_ids.tolist()):
        raise DataError(
            tr("The products file names no image of the split."),
            where=path,
            found=listed(list(product)[:3]) or tr("an empty file"),
            hint=tr("Is it the file of another split?"),
        )
    # A product's name cannot start with a tab, so these labels differ from all names.
    return group_numbers([product.get(int(image), f"\t{image}") for image in image_ids])


def _read_tsv(path: Path) -> dict[int, str]:
    product: dict[int, str] = {}
    try:
        lines = read_regular(path, MOST_BYTES).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise cannot_read(path, error) from error
    for number, line in enumerate(lines, 1):
        image, tab, name = line.partition("\t")
        if not tab or not image.strip().isdecimal() or not name.strip():
            raise DataError(
                tr("A line of the products file has the wrong form."),
                where=f"{path}:{number}",
                found=line[:60],
                expected=tr("image id, tab, product"),
            )
        if product.setdefault(int(image), name.strip()) != name.strip():
            raise DataError(
                tr("An image belongs to two products."), where=f"{path}:{number}", found=line[:60]
            )
    return product
