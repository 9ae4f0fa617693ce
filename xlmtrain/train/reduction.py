"""The mean of the gradients over the processes: each part of it is sent as soon as it is complete.

Letters: B rows, T positions, D width, V vocabulary, U rows of the embeddings that the last micro-batches look up.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.nn import functional as F

from xlmtrain.data.batch import to_device
from xlmtrain.objective import LanguageModel


class Reduction:
    """What DistributedDataParallel does with a bucket of gradients, and what is left to do after it.

    Embeddings (V, D) that are the output layer's weights, too, get one part of their gradient at the beginning of the
    backward pass and one, where tokens were looked up, at its end. In their last micro-batches the processes look up U
    rows, all together. The other rows are complete when the output layer's part is there, and are sent beside the rest
    of the backward pass; the U rows follow it. Nothing is sent twice.

    ``dtype``: the numbers that are sent; None: the gradients' own.
    """

    def __init__(self, model: LanguageModel, dtype: torch.dtype | None) -> None:
        table = model.encoder.token_embeddings
        self._dtype, self._pad = dtype, table.padding_idx
        self._weight = table.weight if model.head.weight is None else None

    def look_up(self, tokens: torch.Tensor) -> torch.Tensor | None:
        """The embeddings (B, T, D) of the last micro-batch's ``tokens`` (B, T), which are on the host, for the model to
        begin with; :meth:`finish` sees to their gradient. None if the embeddings are no output layer.

        The processes begin to agree on the U rows. Their hosts do, which are ahead of the GPUs: none of these waits.
        """
        if self._weight is None:
            return None
        self._tokens = tokens
        self._looked_up = torch.zeros(len(self._weight), dtype=torch.uint8)
        self._looked_up[tokens] = 1
        self._looked_up[self._pad] = 1  # so that it has a place among them
        self._agreed = dist.all_reduce(self._looked_up, dist.ReduceOp.MAX, async_op=True)
        self._embedded = F.embedding(to_device(tokens, self._weight.device), self._weight.detach()).requires_grad_()
        return self._embedded

    def reduce(self, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        """Send a bucket of gradients, without the U rows."""
        buffer, gradients = bucket.buffer(), bucket.gradients()
        tied = [i for i, parameter in enumerate(bucket.parameters()) if parameter is self._weight]
        if not tied:
            return self._mean(buffer).then(lambda done: buffer.copy_(done.value()[0]))
        self._share_out()
        matrix = gradients.pop(tied[0])
        parts = [matrix[self._early], *gradients]

        def put_back(done: torch.futures.Future[list[torch.Tensor]]) -> torch.Tensor:
            rows, *others = done.value()[0].split([part.numel() for part in parts])
            matrix.index_copy_(0, self._early, rows.view(-1, matrix.shape[1]).to(matrix.dtype))
            for gradient, other in zip(gradients, others):
                gradient.copy_(other.view_as(gradient))
            return buffer

        return self._mean(torch.cat([part.flatten() for part in parts])).then(put_back)

    def _share_out(self) -> None:
        """Which rows are early and which late, once all processes have named theirs.

        They are kept until the next step: on a GPU they are still in use when the host is done with them.
        """
        assert self._weight is not None
        self._agreed.wait()
        late = self._looked_up.bool()
        self._places = late.cumsum(0) - 1  # of the late rows among themselves
        self._late = to_device(late.nonzero()[:, 0], self._weight.device)
        self._early = to_device((~late).nonzero()[:, 0], self._weight.device)

    def finish(self) -> None:
        """After the backward pass: add the gradient of the look-ups to the U rows, and send them."""
        if self._weight is None:
            return
        gradient, places = self._weight.grad, to_device(self._places[self._tokens], self._weight.device)
        assert gradient is not None
        rows = torch.ops.aten.embedding_dense_backward(
            self._embedded.grad, places, len(self._late), int(self._places[self._pad]), False
        )
        rows += gradient[self._late]
        gradient.index_copy_(0, self._late, self._mean(rows).wait()[0].to(gradient.dtype))

    def _mean(self, gradients: torch.Tensor) -> torch.futures.Future[list[torch.Tensor]]:
        """The mean over the processes; ``gradients`` are lost."""
        sent = gradients.div_(dist.get_world_size()).to(self._dtype or gradients.dtype)  # divided: fp16 overflows early
        return dist.all_reduce(sent, async_op=True).get_future()
