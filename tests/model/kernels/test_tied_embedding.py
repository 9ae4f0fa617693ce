"""The lookup that a CPU trains with has the values and the gradients of torch's embedding."""

from __future__ import annotations

import torch
from torch import nn

from xlmtrain.model.kernels.tied_embedding import tied_embedding
from xlmtrain.text.vocab import PAD

WORDS, DIM = 50, 16


def test_it_has_the_gradient_of_an_embedding() -> None:
    torch.manual_seed(0)
    table = nn.Embedding(WORDS, DIM, padding_idx=PAD)
    tokens = torch.randint(WORDS, (4, 20))
    tokens[0, :5] = PAD
    tokens[1] = 7  # a word again and again
    to_vectors, to_matrix = torch.randn(4, 20, DIM), torch.randn(WORDS, DIM)
    vectors, matrix = tied_embedding(table, tokens)
    assert torch.equal(vectors, table(tokens))
    (found,) = torch.autograd.grad((vectors * to_vectors).sum() + (matrix * to_matrix).sum(), table.weight)
    (expected,) = torch.autograd.grad(
        (table(tokens) * to_vectors).sum() + (table.weight * to_matrix).sum(), table.weight
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    vectors, _ = tied_embedding(table, tokens)
    (found,) = torch.autograd.grad((vectors * to_vectors).sum(), table.weight)  # the matrix not used
    torch.testing.assert_close(found, expected - to_matrix, atol=1e-5, rtol=0)
