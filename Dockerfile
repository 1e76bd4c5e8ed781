# The search service without torch: an index, and a model that `xmr export onnx` wrote.
#
#   xmr export onnx runs/demo data/model
#   xmr index build products.csv data/index --checkpoint runs/demo
#   docker build --tag xmr .
#   docker run --publish 8000:8000 --volume ./data:/data xmr
#
# compose.yaml runs it with Qdrant in place of the folder data/index.
FROM python:3.12-slim

# 1000 is the first user of most machines: the service then writes caches in a mounted ./data.
RUN useradd --uid 1000 --create-home xmr
WORKDIR /app
COPY docker/requirements.txt docker/
RUN pip install --no-cache-dir --requirement docker/requirements.txt
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY bagformer_cli bagformer_cli
COPY configs configs
COPY entity_dicts entity_dicts
# --no-deps: torch and what is built on it are for training (docker/requirements.txt).
RUN pip install --no-cache-dir --no-deps .

USER 1000
WORKDIR /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["xmr"]
CMD ["serve", "--index", "/data/index", "--checkpoint", "/data/model", "--runtime", "onnx", "--host", "0.0.0.0"]
