"""The families of encoders, and the parts that each is built of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple


class Family(str, Enum):
    """Architecture of the encoder: XLM, or a class of transformers. xlm_roberta is roberta under its own class;
    jina_embeddings_v3 is roberta with rotary positions."""

    xlm = "xlm"
    bert = "bert"
    roberta = "roberta"
    xlm_roberta = "xlm_roberta"
    modernbert = "modernbert"
    jina_embeddings_v3 = "jina_embeddings_v3"


class PairLayout(NamedTuple):
    """Pairs of texts: how many ``separators`` are between them, and whether the second has token type 1."""

    separators: int = 1
    token_types: bool = False


ONE_SEPARATOR = PairLayout()


@dataclass(frozen=True)
class ClassifierParts:
    """The layers of a classification head before its last linear map, as in transformers' class of the family.

    ``dense``: a linear map, then tanh, or with ``norm`` the family's non-linearity and a norm. ``dropout_first``:
    dropout before that, too. ``of_words``: heads that classify words have these layers, too. ``pair``: the input of a
    pair of texts.
    """

    dense: bool = False
    norm: bool = False
    dropout_first: bool = False
    of_words: bool = False
    pair: PairLayout = ONE_SEPARATOR


@dataclass(frozen=True)
class Parts:
    """The parts in which families differ.

    ``pre_norm``: norms before attention and feed-forward instead of after them, and one after the last block. The first
    attention has none, because the norm of the embeddings precedes it. ``rotary``: positions rotate queries and keys,
    instead of a table of position embeddings. ``local``: most blocks attend to nearby positions only. ``gated``: GeGLU.
    ``biases``: of linear maps and norms; the output layer always has one. ``token_types``: an embedding of the token
    type; all tokens have type 0. ``after_pad``: the rows of positions start after the id of the padding.
    ``head_transform``: a linear map, a non-linearity and a norm before the output layer; ``gelu_head``: its
    non-linearity is GELU, whatever that of the blocks. ``added_languages``: language embeddings are our addition and
    start at zero. ``classifier``: the head of a fine-tuned model.
    """

    pre_norm: bool = False
    rotary: bool = False
    local: bool = False
    gated: bool = False
    biases: bool = True
    token_types: bool = False
    after_pad: bool = False
    head_transform: bool = True
    gelu_head: bool = False
    added_languages: bool = True
    classifier: ClassifierParts = ClassifierParts()


_ROBERTA = Parts(
    token_types=True,
    gelu_head=True,
    after_pad=True,
    classifier=ClassifierParts(dense=True, dropout_first=True, pair=PairLayout(separators=2)),
)
PARTS = {
    Family.xlm: Parts(head_transform=False, added_languages=False),
    Family.bert: Parts(
        token_types=True,
        classifier=ClassifierParts(dense=True, pair=PairLayout(token_types=True)),
    ),
    Family.roberta: _ROBERTA,
    Family.xlm_roberta: _ROBERTA,
    Family.modernbert: Parts(
        pre_norm=True,
        rotary=True,
        local=True,
        gated=True,
        biases=False,
        classifier=ClassifierParts(dense=True, norm=True, of_words=True),
    ),
    Family.jina_embeddings_v3: replace(_ROBERTA, rotary=True, after_pad=False),
}
