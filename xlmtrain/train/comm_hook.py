"""Communication hooks of DistributedDataParallel: the mean of the gradients over the processes.

Letters: B rows, T positions, D width, V vocabulary, U rows of the embeddings that the last micro-batches look up.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from xlmtrain.data.batch import to_device
from xlmtrain.model.language_model import LanguageModel


def mean_over_processes(gradients: torch.Tensor, dtype: torch.dtype | None) -> torch.futures.Future[list[torch.Tensor]]:
    """Start to average ``gradients`` (overwritten) over the processes, sent in ``dtype``, or None for their own."""
    # Divided before they are sent, as the sum may overflow in fp16.
    sent = gradients.div_(dist.get_world_size()).to(dtype or gradients.dtype)
    return dist.all_reduce(sent, async_op=True).get_future()


def compress_hook(dtype: torch.dtype | None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Average a bucket of gradients, sent in ``dtype``, or None for their own."""
    buffer = bucket.buffer()
    return mean_over_processes(buffer, dtype).then(lambda done: buffer.copy_(done.value()[0]))


class TiedEmbeddingCommHook:
    """Communication hook for embeddings (V, D) that are the weight of the output layer, too.

    Their gradient is complete only at the end of the backward pass, when the lookups of the tokens add to it. So
    DistributedDataParallel sends it last, with nothing left to hide the transfer behind. But rows that no process looks
    up in its last micro-batch are complete once the output layer has its gradient: they are all-reduced during the rest
    of the backward pass, the U others after it. Nothing is sent twice.

    ``dtype``: of the numbers that are sent; None: the gradients' own. Needs a model with tied embeddings.
    """

    def __init__(self, model: LanguageModel, dtype: torch.dtype | None) -> None:
        self._dtype, self._weight, self._pad = dtype, model.encoder.token_embeddings.weight, model.special.pad
        self._leaf: torch.Tensor | None = None
        model.encoder.register_forward_pre_hook(self._replace_embeds, with_kwargs=True)
        model.head.register_forward_pre_hook(self._replace_matrix)

    def embed(self, tokens: torch.Tensor) -> None:
        """Look up ``tokens`` (B, T), on the host, of the last micro-batch, for the next forward pass to begin with.

        The gradient stops at the result, for :meth:`finish` to add. The processes begin to agree on the U rows. This is
        done by the hosts, which are ahead of the GPUs, so that no GPU waits.
        """
        self._tokens = tokens
        self._looked_up = torch.zeros(len(self._weight), dtype=torch.uint8)
        self._looked_up[tokens] = 1
        self._looked_up[self._pad] = 1  # so that it has a place among them
        self._agreed = dist.all_reduce(self._looked_up, dist.ReduceOp.MAX, async_op=True)
        self._leaf = F.embedding(to_device(tokens, self._weight.device), self._weight.detach()).requires_grad_()

    def hook(self, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        """Average a bucket of gradients, without the U rows."""
        tied = [i for i, parameter in enumerate(bucket.parameters()) if parameter is self._weight]
        if not tied:
            return compress_hook(self._dtype, bucket)
        self._partition_rows()
        buffer, gradients = bucket.buffer(), bucket.gradients()
        matrix = gradients.pop(tied[0])
        parts = [matrix[self._early], *gradients]

        def put_back(done: torch.futures.Future[list[torch.Tensor]]) -> torch.Tensor:
            rows, *others = done.value()[0].split([part.numel() for part in parts])
            matrix.index_copy_(0, self._early, rows.view(-1, matrix.shape[1]).to(matrix.dtype))
            for gradient, other in zip(gradients, others):
                gradient.copy_(other.view_as(gradient))
            return buffer

        return mean_over_processes(torch.cat([part.flatten() for part in parts]), self._dtype).then(put_back)

    def finish(self) -> None:
        """Add the gradient of the lookups to the U rows and average these, after the backward pass."""
        gradient, places = self._weight.grad, to_device(self._places[self._tokens], self._weight.device)
        assert gradient is not None
        assert self._leaf is not None
        rows = torch.ops.aten.embedding_dense_backward(
            self._leaf.grad, places, len(self._late), int(self._places[self._pad]), False
        )
        rows += gradient[self._late]
        averaged = mean_over_processes(rows, self._dtype).wait()[0]
        gradient.index_copy_(0, self._late, averaged.to(gradient.dtype))
        self._leaf = None

    def _partition_rows(self) -> None:
        """Split the rows into early and late ones (the U rows), once all processes have named theirs.

        They are kept until the next step: on a GPU they are still in use when the host is done with them.
        """
        self._agreed.wait()
        late = self._looked_up.bool()
        self._places = late.cumsum(0) - 1  # of the late rows among themselves
        self._late = to_device(late.nonzero()[:, 0], self._weight.device)
        self._early = to_device((~late).nonzero()[:, 0], self._weight.device)

    def _replace_embeds(
        self, encoder: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Let the encoder begin with the leaf of :meth:`embed`, if there is one."""
        return None if self._leaf is None else (inputs, {**options, "input_embeds": self._leaf})

    def _replace_matrix(self, head: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Let the output layer give its gradient to the parameter itself: it is then complete at once."""
        return None if self._leaf is None else (inputs[0], self._weight, *inputs[2:])
