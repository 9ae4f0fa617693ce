"""Published data sets are read by the presets ``task=...`` as they are published; the lines are invented."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.toy import toy_model
from xlmtrain.config.finetune import SelectionMetric
from xlmtrain.config.load import compose, config_groups
from xlmtrain.evaluate.classification_data import read_examples
from xlmtrain.finetune.tasks import make_task

MNLI = "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
MNLI_TRAIN = f"{MNLI} sentence1 sentence2 label1 gold_label"
MNLI_DEV = f"{MNLI} sentence1 sentence2 label1 label2 label3 label4 label5 gold_label"
STSB = "index genre filename year old_index source1 source2 sentence1 sentence2 score"
XNLI = (
    "language gold_label sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse sentence1 "
    "sentence2 promptID pairID genre label1 label2 label3 label4 label5 sentence1_tokenized sentence2_tokenized match"
)
RTE = "index sentence1 sentence2 label"
# Rows of cells between blanks, texts between tabs would have blanks: "_" stands for one.
TASKS: dict[str, tuple[dict[str, list[str]], list[str], list[str], int]] = {
    "glue_cola": (
        {f: ["gj04 1 _ a_b", "gj04 0 * c_d", "cj99 1 _ e"] for f in ("train.tsv", "dev.tsv")},
        ["0", "1"],
        ["a b"],
        3,
    ),
    "glue_sst2": ({f: ["sentence label", "a_b 1", "c 0"] for f in ("train.tsv", "dev.tsv")}, ["0", "1"], ["a b"], 2),
    "glue_mrpc": (
        {
            f: ["Quality #1_ID #2_ID #1_String #2_String", '1 70 71 "a_b c', "0 72 73 d e"]
            for f in ("train.tsv", "dev.tsv")
        },
        ["0", "1"],
        ['" a b', "c"],
        2,
    ),
    "glue_qqp": (
        {
            f: ["id qid1 qid2 question1 question2 is_duplicate", "1 2 3 a b 0", "4 5 6 c", "7 8 9 d e 1"]
            for f in ("train.tsv", "dev.tsv")
        },
        ["0", "1"],
        ["a", "b"],
        2,
    ),
    "glue_stsb": (
        {f: [STSB, "0 g f 2012 1 s t a b 5.000", "1 g f 2012 2 s t c d 0.25"] for f in ("train.tsv", "dev.tsv")},
        [],
        ["a", "b"],
        2,
    ),
    "glue_mnli": (
        {
            "train.tsv": [MNLI_TRAIN, "0 1 2 g p p p p a b neutral neutral", "1 1 2 g p p p p c d no entailment"],
            "dev_matched.tsv": [MNLI_DEV, "0 1 2 g p p p p a b x x x x x neutral", "1 1 2 g p p p p a b x x x x x -"],
            "dev_mismatched.tsv": [MNLI_DEV, "0 1 2 g p p p p a b x x x x x entailment"],
        },
        ["entailment", "neutral"],
        ["a", "b"],
        2,
    ),
    "glue_qnli": (
        {
            f: ["index question sentence label", "0 a b entailment", "1 c d not_entailment"]
            for f in ("train.tsv", "dev.tsv")
        },
        ["entailment", "not_entailment"],
        ["a", "b"],
        2,
    ),
    "glue_rte": (
        {f: [RTE, "0 a b entailment", "1 c d not_entailment"] for f in ("train.tsv", "dev.tsv")},
        ["entailment", "not_entailment"],
        ["a", "b"],
        2,
    ),
    "glue_wnli": ({f: [RTE, "0 a b 1", "1 c d 0"] for f in ("train.tsv", "dev.tsv")}, ["0", "1"], ["a", "b"], 2),
    "xnli": (
        {
            "XNLI-MT-1.0/multinli/multinli.train.en.tsv": ["premise hypo label", "a b neutral", "c d contradictory"],
            **{
                f"XNLI-1.0/xnli.{split}.tsv": [
                    XNLI,
                    "ar neutral _ _ _ _ s t 1 2 g n n n n n s t True",
                    *(
                        f"{lang} {label} _ _ _ _ a b 1 2 g n n n n n a b True"
                        for lang in ("en", "de")
                        for label in ("neutral", "contradiction")
                    ),
                ]
                for split in ("dev", "test")
            },
        },
        ["contradiction", "neutral"],
        ["a", "b"],
        2,
    ),
    "pawsx": (
        {
            name: ["id sentence1 sentence2 label", "1 a b 0", "2 c d 1", "3 NS e 1"]
            for name in ("en/train.tsv", "en/dev_2k.tsv", "en/test_2k.tsv", "de/test_2k.tsv")
        },
        ["0", "1"],
        ["a", "b"],
        2,
    ),
    "germeval2018": (
        {
            f"germeval2018.{name}.txt": ["a_b OTHER OTHER", "c OFFENSE INSULT", "d OTHER OTHER"]
            for name in ("training", "test")
        },
        ["OFFENSE", "OTHER"],
        ["a b"],
        3,
    ),
}
CONLL = "-DOCSTART- -X- -X- O\n\na NNP B-NP {}\nb NNP I-NP I-PER\nc VBZ B-VP O\n\nd NNP B-NP I-LOC\n"
GERMEVAL = (
    "#\tn-tv.de vom 26.02.2005 [2005-02-26] \n1\ta\tO\tO\n2\tb\tB-PER\tO\n\n#\thttp://de [2009]\n1\tc\tB-LOC\tB-ORG\n"
)
UD = (
    "# sent_id = 1\n# text = a b c d e f g h\n1-2\tab\t_\t_\t_\t_\t_\t_\t_\t_\n1\ta\ta\tADP\tX\t_\t3\tcase\t_\t_\n"
    "2\tb\tb\tDET\tX\t_\t3\tdet\t_\t_\n\n1\tc\tc\tNOUN\tX\t_\t0\troot\t_\t_\n1.1\t_\t_\t_\t_\t_\t_\t_\t_\t_\n\n"
)
TAGGED: dict[str, tuple[list[str], str, list[str], list[str]]] = {
    "conll2003": (["eng.train", "eng.testa", "eng.testb"], CONLL.format("I-PER"), ["I-LOC", "I-PER", "O"], ["a", "d"]),
    "germeval2014": (
        [f"NER-de-{split}.tsv" for split in ("train", "dev", "test")],
        GERMEVAL,
        ["B-LOC", "B-PER", "O"],
        ["a", "c"],
    ),
    "ud": (["train.conllu", "test.conllu"], UD, ["ADP", "DET", "NOUN"], ["a", "c"]),
}


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def table(rows: list[str]) -> str:
    """Cells between blanks, in which ``_`` is a blank; the names of columns keep theirs."""
    cells = [
        [cell if "sentence" in cell or "gold" in cell else cell.replace("_", " ") for cell in row.split(" ")]
        for row in rows
    ]
    kept = [
        [cell.replace(" ", "_") if cell in ("is duplicate", "not entailment") else cell for cell in row]
        for row in cells
    ]
    return "".join("\t".join(row) + "\n" for row in kept)


def test_every_preset_is_tried() -> None:
    assert set(config_groups("finetune")["task"]) == set(TASKS) | set(TAGGED)


@pytest.mark.parametrize("name", TASKS)
def test_tables_as_published(name: str, tiny_dataset: Path, tmp_path: Path) -> None:
    files, labels, texts, count = TASKS[name]
    for file, rows in files.items():
        write(tmp_path, file, table(rows))
    config = compose("finetune", ["init.pretrained=x", "run=r", f"task={name}", f"task.folder={tmp_path}"]).task
    task, saved = make_task(config), toy_model(tiny_dataset)
    splits = task.encode_files({split: getattr(config, split) for split in ("train", "valid", "test")}, saved)
    assert task.labels == labels
    for files_of in splits.values():
        for key, file in files_of.items():
            assert len(file.ids) == (1 if name == "glue_mnli" and len(files_of) > 1 else count)
            text = saved.pipeline()
            given = [id for part in texts for id in [*text.ids(part, key[:2]), saved.vocab.special.eos]]
            assert file.ids[0].tolist() == given
    if name in ("glue_mrpc", "glue_qqp"):
        assert SelectionMetric.binary_f1 in task.metrics
    if name == "glue_mnli":
        assert list(splits["test"]) == ["en", "en/mismatched"]


@pytest.mark.parametrize("name", TAGGED)
def test_tagged_text_as_published(name: str, tiny_dataset: Path, tmp_path: Path) -> None:
    files, content, labels, firsts = TAGGED[name]
    for file in files:
        write(tmp_path, file, content)
    given = [f"task.{s}={{de: {tmp_path}/{s}.conllu}}" for s in ("train", "test")]
    chosen = given if name == "ud" else [f"task.folder={tmp_path}"]
    config = compose("finetune", ["init.pretrained=x", "run=r", f"task={name}", *chosen]).task
    task, saved = make_task(config), toy_model(tiny_dataset)
    (file,) = task.encode_files({"train": config.train}, saved)["train"].values()
    assert task.labels == labels
    assert [saved.vocab.token(ids[0]) for ids in file.ids] == firsts
    assert (SelectionMetric.entity_f1 in task.metrics) is (name != "ud")


@pytest.mark.parametrize(
    ("rows", "texts", "labels"),
    [
        (["index sentence", "0 a_b", "1 c"], [("a b",), ("c",)], ["", ""]),  # CoLA, SST-2
        (["index question sentence", "0 a b"], [("a", "b")], [""]),
        (["index #1_ID #2_ID #1_String #2_String", "0 7 8 a b"], [("a", "b")], [""]),
        (["id question1 question2", "0 a b"], [("a", "b")], [""]),
        ([STSB.removesuffix(" score"), "0 g f 2012 1 s t a b"], [("a", "b")], [""]),
        ([f"{MNLI} sentence1 sentence2", "0 1 2 g p p p p a b"], [("a", "b")], [""]),
        ([RTE.removesuffix(" label"), "0 a b"], [("a", "b")], [""]),
        ([RTE, "0 a b yes", "1 a b no"], [("a", "b"), ("a", "b")], ["yes", "no"]),
        (["a_b", "c"], [("a b",), ("c",)], ["", ""]),  # lines of text
        (["a b", "c d"], [("a", "b"), ("c", "d")], ["", ""]),  # pairs
        (["yes a", "no b"], [("a",), ("b",)], ["yes", "no"]),
    ],
)
def test_files_that_may_lack_labels(
    rows: list[str], texts: list[tuple[str, ...]], labels: list[str], tmp_path: Path
) -> None:
    write(tmp_path, "a.tsv", table(rows))
    found = read_examples(tmp_path / "a.tsv", "en", "file", is_label={"yes", "no"}.__contains__)
    assert [one.texts for one in found] == texts
    assert [one.label for one in found] == labels
