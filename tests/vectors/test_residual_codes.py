"""Residual codes: what they lose, what they weigh, and that a search reads them as vectors."""

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
    dim=st.sampled_from([4, 8, 24, 64]),
    bits=st.sampled_from([2, 4]),
    seed=st.integers(0, 99),
)
def test_what_comes_back_is_off_by_a_buckets_width_at_most(
    count: int, dim: int, bits: int, seed: int
) -> None:
    values = 3 * unit(count, dim, seed)
    book = Codebook.train(values, bits)
    assert not book.unit
    found = book.decode(book.encode(values))
    rest = values - book.centroids[codes.nearest(values, book.centroids, unit=False)]
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
        book = Codebook.train(plain, 2)
        assert book.unit
        assert torch.allclose(book.decode(book.encode(plain)).norm(dim=1), torch.ones(500))


@pytest.mark.parametrize(("bits", "size"), [(2, 2 + 4), (4, 2 + 8)])
def test_a_code_is_two_bytes_and_so_many_bits_a_dimension(bits: int, size: int) -> None:
    book = Codebook.train(unit(500), bits)
    assert book.bits == bits
    assert book.encode(unit(30, seed=1)).shape == (30, size)
    items = packed(unit(30), [10, 20]).code(book)
    assert items.nbytes == 30 * size
    assert (items.dim, items.storage, len(items)) == (16, f"residual{bits}", 2)


def test_four_bits_lose_less_than_two_and_two_less_than_none() -> None:
    values = unit(2000)
    lost = []
    for bits in (2, 4):
        book = Codebook.train(values, bits)
        lost.append(float((book.decode(book.encode(values)) - values).square().sum(1).mean()))
    book = Codebook.train(values, 2)
    nothing = values - book.centroids[codes.nearest(values, book.centroids, unit=False)]
    assert lost[1] < lost[0] / 3
    assert lost[0] < float(nothing.square().sum(1).mean()) / 2


def test_the_compiled_loop_and_plain_torch_decode_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    for bits in (2, 4):
        book = Codebook.train(unit(3000, 32), bits)
        coded = book.encode(unit(100, 32, seed=3))
        assert len(book.centroids) > 1
        fast = book.decode(coded.view(4, 25, -1))
        monkeypatch.setattr(codes, "_loops", lambda: None)
        assert torch.allclose(book.decode(coded).view(4, 25, -1), fast, atol=1e-6)
        monkeypatch.undo()


def test_more_centroids_than_a_byte_counts() -> None:
    centroids = torch.arange(300.0)[:, None].repeat(1, 4)
    book = Codebook(centroids, torch.tensor([-0.2, 0.0, 0.2]), torch.tensor([-0.3, -0.1, 0.1, 0.3]))
    values = centroids[[1, 257, 299]] + 0.1
    assert torch.allclose(book.decode(book.encode(values)), values)


@pytest.mark.parametrize("bits", [2, 4])
def test_a_search_over_codes_is_a_search_over_what_they_mean(tmp_path: Path, bits: int) -> None:
    lengths = [3, 0, 5, 7] * 40
    values = unit(sum(lengths))
    book = Codebook.train(values, bits)
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
    coded = items.code(Codebook.train(values, 4))
    plain = coded.to(dtype=torch.float32)
    for pick in (lambda v: v[1], lambda v: v[1:], lambda v: v.select([2, 0]), lambda v: v[::2]):
        assert torch.equal(pick(coded).to(dtype=torch.float32).values, pick(plain).values)
    both = MultiVectors.concatenate([coded[:1], coded[1:]])
    assert torch.equal(both.values, coded.values)
    assert coded.to(dtype=torch.uint8).storage == "residual4"
    small = coded.to(dtype=torch.int8).to(dtype=torch.float32).values
    assert torch.allclose(small, plain.values, atol=0.01)
    assert coded.code(coded.codebook) is coded  # type: ignore[arg-type]


def test_a_codebook_survives_as_bytes_and_is_known_by_its_digest() -> None:
    book = Codebook.train(unit(2000), 4)
    again = Codebook.from_bytes(book.to_bytes())
    assert again.digest == book.digest
    assert Codebook.train(unit(2000), 4).digest == book.digest
    assert Codebook.train(unit(2000, seed=1), 4).digest != book.digest
    for wrong in (b"", b"nonsense", book.to_bytes()[:-30]):
        with pytest.raises(ValueError, match="codebook"):
            Codebook.from_bytes(wrong)


def test_what_cannot_be_coded_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is none"):
        Codebook.train(torch.zeros(0, 8), 4)
    with pytest.raises(InputError, match="whole bytes"):
        Codebook.train(torch.zeros(3, 6), 2)
    book, other = Codebook.train(unit(300), 4), Codebook.train(unit(300, seed=1), 4)
    items = packed(unit(9), [4, 5])
    with pytest.raises(InputError, match="codebook"):
        items.to(dtype=torch.uint8)
    with pytest.raises(InputError, match="codebook"):
        MultiVectors(torch.zeros(2, 3, dtype=torch.uint8), torch.tensor([0, 2]))
    with pytest.raises(InputError, match="codebook"):
        MultiVectors(torch.zeros(2, 3, dtype=torch.uint8), torch.tensor([0, 2]), None, book)
    with pytest.raises(InputError, match="differ"):
        write_vectors(tmp_path / "v", [items.code(book), items.code(other)])
    write_vectors(tmp_path / "v", [items.code(book)])
    (tmp_path / "v" / "codebook.npz").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="cannot be read"):
        open_vectors(tmp_path / "v")


def test_buckets_hold_about_as_many_and_stand_for_their_mean() -> None:
    values = unit(5000, 32)
    book = Codebook.train(values, 2)
    rest = values - book.centroids[codes.nearest(values, book.centroids, unit=False)]
    bucket = torch.bucketize(rest, book.edges)
    shares = np.bincount(bucket.flatten().numpy(), minlength=4) / rest.numel()
    assert np.allclose(shares, 0.25, atol=0.01)
    means = [float(rest[bucket == b].mean()) for b in range(4)]
    assert np.allclose(means, book.weights.numpy(), atol=1e-3)
