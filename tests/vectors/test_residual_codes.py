"""Residual codes: their error, their size, and that a search reads them as vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bagformer_cli.errors import InputError
from bagformer_cli.interaction import MultiVectors, maxsim
from bagformer_cli.interaction.topk import score_pairs, topk, topk_rescored
from bagformer_cli.vectors import residual_codes as codes
from bagformer_cli.vectors.residual_codes import Codebook
from bagformer_cli.vectors.storage import open_vectors, write_vectors


def unit(count: int, dim: int = 16, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(7, dim, generator=generator)
    some = torch.randint(7, (count,), generator=generator)
    noise = torch.randn(count, dim, generator=generator)
    return torch.nn.functional.normalize(centres[some] + 0.5 * noise, dim=1)


def packed(values: torch.Tensor, lengths: list[int]) -> MultiVectors:
    return MultiVectors(values[: sum(lengths)], torch.tensor([0, *lengths]).cumsum(0))


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 300),
    dim=st.sampled_from([2, 4, 8, 24, 64]),
    seed=st.integers(0, 99),
)
def test_a_decoded_value_differs_by_the_width_of_its_bucket_at_most(
    count: int, dim: int, seed: int
) -> None:
    values = 3 * unit(count, dim, seed)
    book = Codebook.train(values)
    assert not book.unit
    found = book.decode(book.encode(values))
    rest = values - book.centroids[codes.nearest(values, book.centroids, spherical=False)]
    bounds = torch.cat([rest.min()[None], book.edges, rest.max()[None]])
    bucket = torch.bucketize(rest, book.edges)
    width = bounds.diff().clamp_min(0)[bucket]
    assert bool(((found - values).abs() <= width + 1e-5).all())
    length = replace(book, unit=True).decode(book.encode(values))
    assert torch.allclose(length, torch.nn.functional.normalize(found, dim=1), atol=1e-5)


def test_vectors_of_unit_length_stay_so() -> None:
    for values in (unit(500), unit(500).half(), packed(unit(500), [5] * 100).quantize()):
        plain = (
            values if isinstance(values, torch.Tensor) else values.to(dtype=torch.float32).values
        )
        book = Codebook.train(plain)
        assert book.unit
        assert torch.allclose(book.decode(book.encode(plain)).norm(dim=1), torch.ones(500))


def test_a_code_is_two_bytes_and_half_a_byte_per_dimension() -> None:
    book = Codebook.train(unit(500))
    assert book.encode(unit(30, seed=1)).shape == (30, 2 + 8)
    items = packed(unit(30), [10, 20]).code(book)
    assert items.nbytes == 30 * (2 + 8)
    assert (items.dim, items.storage, len(items)) == (16, "residual4", 2)


def test_four_bits_keep_most_of_what_the_centroid_alone_loses() -> None:
    values = unit(2000)
    book = Codebook.train(values)
    error = float((book.decode(book.encode(values)) - values).square().sum(1).mean())
    closest = book.centroids[codes.nearest(values, book.centroids, spherical=False)]
    without = float((values - closest).square().sum(1).mean())
    assert error < without / 30


def test_the_compiled_loop_and_plain_torch_decode_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    book = Codebook.train(unit(3000, 32))
    coded = book.encode(unit(100, 32, seed=3))
    assert len(book.centroids) > 1
    assert codes._loops() is not None
    fast = book.decode(coded.view(4, 25, -1))
    monkeypatch.setattr(codes, "_loops", lambda: None)
    assert torch.allclose(book.decode(coded).view(4, 25, -1), fast, atol=1e-6)


def test_more_than_256_centroids_use_the_second_byte() -> None:
    centroids = torch.arange(300.0)[:, None].repeat(1, 4)
    weights = torch.linspace(-0.3, 0.3, 16)
    book = Codebook(centroids, (weights[1:] + weights[:-1]) / 2, weights)
    values = centroids[[1, 257, 299]] + weights[9]
    assert torch.allclose(book.decode(book.encode(values)), values)


def test_a_search_over_codes_is_a_search_over_the_decoded_vectors(tmp_path: Path) -> None:
    lengths = [3, 0, 5, 7] * 40
    values = unit(sum(lengths))
    book = Codebook.train(values)
    items = packed(values, lengths).code(book)
    plain = items.to(dtype=torch.float32)
    texts = packed(unit(9, seed=5), [4, 5])
    stored = write_vectors(tmp_path / "v", [items[:100], items[100:]])
    assert stored.codebook is not None
    assert stored.codebook.digest == book.digest
    for coded in (items, stored):
        for search in (topk, topk_rescored):
            for found, wanted in zip(
                search(texts, coded, 7), search(texts, plain, 7), strict=True
            ):  # fmt: skip
                assert torch.allclose(found, wanted)
        for found, wanted in zip(maxsim(texts, coded), maxsim(texts, plain), strict=True):
            assert torch.allclose(found, wanted)
        chosen = torch.tensor([[0, 2, 159], [158, 3, 1]])
        expected = score_pairs(texts, plain, chosen)
        assert torch.allclose(score_pairs(texts, coded, chosen), expected)


def test_items_keep_their_codes_through_selections() -> None:
    values = unit(60)
    items = packed(values, [10, 20, 30])
    coded = items.code(Codebook.train(values))
    plain = coded.to(dtype=torch.float32)
    for pick in (lambda v: v[1], lambda v: v[1:], lambda v: v.select([2, 0]), lambda v: v[::2]):
        assert torch.equal(pick(coded).to(dtype=torch.float32).values, pick(plain).values)
    both = MultiVectors.concatenate([coded[:1], coded[1:]])
    assert torch.equal(both.values, coded.values)
    assert coded.to(dtype=torch.uint8).storage == "residual4"
    small = coded.to(dtype=torch.int8).to(dtype=torch.float32).values
    assert torch.allclose(small, plain.values, atol=0.01)
    assert coded.code(coded.codebook) is coded  # type: ignore[arg-type]


def test_a_codebook_survives_as_bytes_and_keeps_its_digest() -> None:
    book = Codebook.train(unit(2000))
    again = Codebook.from_bytes(book.to_bytes())
    assert again.digest == book.digest
    assert Codebook.train(unit(2000)).digest == book.digest
    assert Codebook.train(unit(2000, seed=1)).digest != book.digest
    for wrong in (b"", b"nonsense", book.to_bytes()[:-30]):
        with pytest.raises(ValueError, match="codebook"):
            Codebook.from_bytes(wrong)


def test_vectors_that_cannot_be_encoded_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sample is empty"):
        Codebook.train(torch.zeros(0, 8))
    with pytest.raises(InputError, match="even dimension"):
        Codebook.train(torch.zeros(3, 5))
    book, other = Codebook.train(unit(300)), Codebook.train(unit(300, seed=1))
    items = packed(unit(9), [4, 5])
    with pytest.raises(ValueError, match="codebook"):
        items.to(dtype=torch.uint8)
    with pytest.raises(ValueError, match="codebook"):
        MultiVectors(torch.zeros(2, 3, dtype=torch.uint8), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="codebook"):
        MultiVectors(torch.zeros(2, 3, dtype=torch.uint8), torch.tensor([0, 2]), None, book)
    with pytest.raises(ValueError, match="alike"):
        write_vectors(tmp_path / "v", [items.code(book), items.code(other)])
    write_vectors(tmp_path / "v", [items.code(book)])
    (tmp_path / "v" / "codebook.npz").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="cannot be read"):
        open_vectors(tmp_path / "v")


def test_buckets_hold_equally_many_residuals_and_decode_to_their_mean() -> None:
    values = unit(5000, 32)
    book = Codebook.train(values)
    rest = values - book.centroids[codes.nearest(values, book.centroids, spherical=False)]
    bucket = torch.bucketize(rest, book.edges)
    shares = np.bincount(bucket.flatten().numpy(), minlength=16) / rest.numel()
    assert np.allclose(shares, 1 / 16, atol=0.003)
    means = [float(rest[bucket == b].mean()) for b in range(16)]
    assert np.allclose(means, book.weights.numpy(), atol=1e-3)
