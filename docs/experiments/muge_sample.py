"""Make the inputs of a dry run of MUGE's protocol: a small dataset and generated weights.

``muge_protocol.py --dry-run`` imports it. The dataset has drawn products in all three splits. If
real files are given, it also has the first images of each of their splits, with the queries that
these images answer. So a dry run reads the form of the real files, and works even if they have only
a few images or lack a split.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from bagformer_cli.data.muge import (
    SPLITS,
    MugeFolder,
    MugeImageWriter,
    Query,
    iter_images,
    iter_queries,
    split_files,
    write_queries,
)
from bagformer_cli.demo.generate import write_demo
from bagformer_cli.text.tokenizer import Tokenizer
from muge_tables import DICTIONARY, PRETRAINED, PUBLISHED, VOCABULARY
from small_weights import (
    original_names,
    original_text,
    resnet_tensors,
    save_bagformer,
    save_original,
    save_tiny,
    tiny_model,
)

DRAWN = 96  # drawn images, in all splits together
DRAWN_SIZE = 64  # pixels per side
TAKEN = 32  # images of each real split
SHIFT = 10_000_000  # added to the ids of drawn products; larger than any id of MUGE
ENTRIES = ("连衣裙", "连衣", "女包", "保温杯", "牛仔裤", "牛仔")


def write_sample(real: Path | None, out: Path) -> Path:
    """Write the dataset of a dry run.

    Args:
        real: A folder in MUGE form, with any of the three splits; None: drawn products alone.
        out: Folder that gets the dataset in ``data/``; if it has one, that is kept.

    Returns:
        The dataset's folder.
    """
    folder, drawn = out / "data", out / "drawn"
    if folder.is_dir():
        return folder
    if not drawn.is_dir():
        write_demo(drawn, DRAWN, workers=1, size=DRAWN_SIZE)
    made = out / "data.unfinished"
    made.mkdir(parents=True, exist_ok=True)
    sources = [] if real is None else [MugeFolder(real)]
    for split in SPLITS:
        queries: list[Query] = []
        queries_path, images_path = split_files(made, split, "query")
        with MugeImageWriter(images_path) as writer:
            for source in (*sources, MugeFolder(drawn)):
                if split not in source.splits:
                    continue
                shift = SHIFT if source.path == drawn else 0
                images, named = first_images(source, split, DRAWN if shift else TAKEN)
                for number, content in images.items():
                    writer.write(number + shift, content)
                queries += [
                    replace(
                        query,
                        query_id=query.query_id + shift,
                        item_ids=() if split == "test" else
                        tuple(number + shift for number in query.item_ids),
                    )
                    for query in named
                ]  # fmt: skip
        write_queries(queries_path, queries)
    made.rename(folder)
    return folder


def first_images(
    folder: MugeFolder, split: str, most: int
) -> tuple[dict[int, bytes], Iterator[Query]]:
    """Read the first images of a split, and the queries that one of them answers.

    Args:
        folder: The dataset.
        split: The split. Queries of ``test`` have no answers: the first ones are returned.
        most: Number of images, and of queries of ``test``.

    Returns:
        Image id to the contents of its file, and queries with their answers among these images.
    """
    images = dict(islice(iter_images(folder.images_path(split)), most))
    queries = iter_queries(folder.queries_path(split))
    if split == "test":
        return images, islice(queries, most)
    cut = (
        replace(query, item_ids=tuple(n for n in query.item_ids if n in images))
        for query in queries
    )
    return images, (query for query in cut if query.item_ids)


def write_weights(out: Path) -> Path:
    """Write generated weights under the names and in the layouts of the published ones.

    Args:
        out: Folder that gets them; an existing one is kept.

    Returns:
        The folder.
    """
    if out.is_dir():
        return out
    made = out.with_name(out.name + ".unfinished")
    made.mkdir(parents=True, exist_ok=True)
    Tokenizer.load().save(made / VOCABULARY)
    (made / DICTIONARY).write_text("".join(f"{entry}\n" for entry in ENTRIES), encoding="utf-8")
    save_original(original_text(tiny_model()) | resnet_tensors(), made / "clip_cn_rn50.pt")
    save_tiny(made / "chinese-clip-vit-base-patch16")
    save_original(original_names(tiny_model(patch_size=16)), made / "clip_cn_vit-l-14.pt")
    save_tiny(made / "chinese-clip-vit-large-patch14-336px", image_size=48)
    save_original(original_names(tiny_model(num_hidden_layers=3)), made / "clip_cn_vit-h-14.pt")
    for seed, name in enumerate((PRETRAINED, PUBLISHED)):
        save_bagformer(made / name, seed)
    made.rename(out)
    return out
