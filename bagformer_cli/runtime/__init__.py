"""Encode and score with an exported model, without torch: numpy and onnxruntime.

>>> from bagformer_cli import runtime
>>> retriever = runtime.load("exported/")                       # doctest: +SKIP
>>> images = retriever.encode_images(["a.jpg"])                 # doctest: +SKIP
>>> titles = retriever.encode_texts(["红色碎花连衣裙"])            # doctest: +SKIP
>>> retriever.score(images, titles).t2i                         # doctest: +SKIP

``xmr export onnx`` writes the folder. Titles, bags and images go through the same code as in
training (``text/``, ``data/images.py``); only the towers are other programs.
"""

from bagformer_cli.runtime.retriever import OnnxRetriever, load
from bagformer_cli.runtime.vectors import Scores, maxsim
from bagformer_cli.vectors.arrays import Vectors

__all__ = ["OnnxRetriever", "Scores", "Vectors", "load", "maxsim"]
