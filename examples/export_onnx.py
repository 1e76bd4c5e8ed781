"""Export a model to ONNX and run it without torch.

    python examples/export_onnx.py

Needs runs/example, from train_and_evaluate.py, and pip install 'bagformer-cli[export]'.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bagformer_cli import load
from bagformer_cli.data.muge import iter_images, iter_queries
from bagformer_cli.export.onnx_folder import export_onnx
from bagformer_cli.runtime.retriever import load as load_exported


def main() -> None:
    """Export, run, compare."""
    folder = Path("example-onnx")
    retriever = load("runs/example", device="cpu")
    manifest = export_onnx(retriever.model, folder)  # or "fp16", "int8"
    size = sum(path.stat().st_size for path in folder.rglob("*.onnx*"))
    print(f"{folder}: {manifest.precision}, {size / 1e6:.1f} MB")

    images = [data for _, data in iter_images("data/demo/MR_valid_imgs.tsv")][:8]
    titles = [query.text for query in iter_queries("data/demo/MR_valid_queries.jsonl")][:8]
    # This part needs numpy and onnxruntime only: `import bagformer_cli.runtime` loads no torch.
    exported = load_exported(folder)
    ours = exported.score(exported.encode_images(images), exported.encode_texts(titles)).t2i
    theirs = retriever.score(retriever.encode_images(images), retriever.encode_texts(titles)).t2i
    print(f"largest difference from torch: {np.abs(ours - theirs.numpy()).max():.1e}")


if __name__ == "__main__":
    main()
