"""Fine-tune a pretrained model on labelled text of one language, test on others (zero-shot).

    xlmtrain finetune init.pretrained=runs/small_cpu run=runs/intents 'task.train={en: intent.train.en.tsv}' \\
        'task.test={en: intent.test.en.tsv, de: intent.test.de.tsv}' 'seeds=[0,1,2]' optim.lr=1e-3
    torchrun --standalone --nproc-per-node=8 -m xlmtrain finetune run=runs/xnli \\
        init.pretrained=mlm_ende_1024.pth init.codes=codes_ende 'task.train={en: multinli.train.en.tsv}' \\
        'task.valid={en: xnli.dev.tsv}' 'task.test={en: xnli.test.tsv, de: xnli.test.tsv}' \\
        evaluate.every=2500 evaluate.patience=10
    xlmtrain finetune --help                                                   the settings and their values

A file has lines of label, text and perhaps a second text, separated by tabs; the tables of XNLI and PAWS-X are read as
published. Labels are classes, numbers, lists of classes, or those of words: ``task.kind``. The same command again
resumes, or continues with more seeds.
"""

import signal
import sys

from xlmtrain.config.finetune import FinetuneConfig
from xlmtrain.config.load import hydra_main
from xlmtrain.finetune.finetune import finetune
from xlmtrain.finetune.scores import result_table
from xlmtrain.interop.formats import read_model
from xlmtrain.runtime.distributed import initialize
from xlmtrain.runtime.logging import set_up_logging
from xlmtrain.runtime.process import StopRequest, disable_malloc_trim
from xlmtrain.runtime.watchdog import GRACE_SECONDS


def main(argv: list[str]) -> None:
    """Fine-tune with the settings of the command line."""
    hydra_main("finetune", run, argv)


def run(config: FinetuneConfig) -> None:
    """Fine-tune and print the table of results. A run that a signal ended exits with 128 + the signal's number."""
    stop = StopRequest()
    with initialize(config.train.device, config.train.hang_timeout + GRACE_SECONDS) as distributed:
        disable_malloc_trim(distributed.device)
        set_up_logging(distributed.rank)
        saved = read_model(config.init.pretrained, codes=config.init.codes)
        results = finetune(config, saved, distributed, stop)
    if results is None:
        sys.exit(128 + (stop.signal or signal.SIGTERM))
    if distributed.is_main:
        print("\n".join(result_table(results, list(config.task.train))))
