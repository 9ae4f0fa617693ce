"""Scores of a model on labelled text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from xlmtrain.config.train import Precision
from xlmtrain.evaluate.classification_data import Encoded
from xlmtrain.finetune.batches import evaluation_batches
from xlmtrain.finetune.classifier import TaskModel
from xlmtrain.finetune.scores import Scores
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.precision import autocast, eval_mode


def evaluate_classifier(
    model: TaskModel,
    files: Mapping[str, Encoded],
    precision: Precision,
    distributed: Distributed,
    report_progress: Callable[[], None],
) -> dict[str, Scores]:
    """Return language -> scores. Collective: the batches are split across the processes.

    ``report_progress``: called before every batch.
    """
    device = distributed.device

    def predict(file: Encoded) -> np.ndarray:
        # The predictions of this process's batches, in the shape of the labels; 0 elsewhere.
        predicted = np.zeros(file.labels.shape)
        for batch, places in evaluation_batches(file, distributed.rank, distributed.world_size):
            report_progress()
            with eval_mode(model), autocast(precision, device):
                predicted[places] = model.task.predict(model.logits(batch.to(device))).cpu().numpy()
        return predicted

    result = {}
    for language, file in files.items():
        mine = distributed.run_on_all(partial(predict, file))
        total = np.array(distributed.all_reduce_sum(mine.ravel().tolist()))
        result[language] = model.task.score(total.reshape(file.labels.shape), file)
    return result
