"""The families of encoders, and the parts that each is built of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Family(str, Enum):
    """Architecture of the encoder: XLM, or a class of transformers; xlm_roberta is roberta under its own class."""

    xlm = "xlm"
    bert = "bert"
    roberta = "roberta"
    xlm_roberta = "xlm_roberta"
    modernbert = "modernbert"


@dataclass(frozen=True)
class Parts:
    """The parts in which families differ.

    ``pre_norm``: norms before attention and feed-forward instead of after them, and one after the last block. The first
    attention has none, because the norm of the embeddings precedes it. ``rotary``: positions rotate queries and keys,
    instead of a table of position embeddings, and most blocks attend to nearby positions only. ``gated``: GeGLU.
    ``biases``: of linear maps and norms; the output layer always has one. ``token_types``: an embedding of the token
    type; all tokens have type 0. ``after_pad``: the rows of positions start after the id of the padding.
    ``head_transform``: a linear map, a non-linearity and a norm before the output layer. ``added_languages``: language
    embeddings are our addition and start at zero.
    """

    pre_norm: bool = False
    rotary: bool = False
    gated: bool = False
    biases: bool = True
    token_types: bool = False
    after_pad: bool = False
    head_transform: bool = True
    added_languages: bool = True


PARTS = {
    Family.xlm: Parts(head_transform=False, added_languages=False),
    Family.bert: Parts(token_types=True),
    Family.roberta: Parts(token_types=True, after_pad=True),
    Family.xlm_roberta: Parts(token_types=True, after_pad=True),
    Family.modernbert: Parts(pre_norm=True, rotary=True, gated=True, biases=False),
}
