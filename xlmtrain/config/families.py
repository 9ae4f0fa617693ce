"""The families of encoders, and the parts of which each is built."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Family(str, Enum):
    """Architecture of the encoder: XLM, or that of a class of transformers; xlm_roberta differs from roberta by it."""

    xlm = "xlm"
    bert = "bert"
    roberta = "roberta"
    xlm_roberta = "xlm_roberta"
    modernbert = "modernbert"


@dataclass(frozen=True)
class Parts:
    """The parts in which families differ.

    ``pre_norm``: a norm before attention and feed-forward instead of after them, and one after the last block; the
    first attention has none, as it follows that of the embeddings. ``rotary``: positions rotate queries and keys,
    instead of a table of position embeddings, and most blocks attend to nearby positions only. ``gated``: GeGLU.
    ``biases``: of linear maps and norms; the output layer always has one. ``token_types``: an embedding of the token
    type, of which type 0 is used. ``after_pad``: the first position has the row after that of the padding's id.
    ``head_transform``: a linear map, a non-linearity and a norm before the output layer. ``added_languages``: language
    embeddings start at zero.
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
