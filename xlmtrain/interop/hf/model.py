"""Hugging Face folders: read, and written so that transformers loads them with its own classes.

XLM's language embeddings are added only if the caller passes ``langs``. For callers that do not (``pipeline``, most
scripts) there is a subfolder per language, in which that language's embedding is added to every position embedding.
Both give the same logits.

config.json model.safetensors               vocab.json merges.txt tokenizer.json tokenizer_config.json
README.md                                   the model card (written by :mod:`xlmtrain.interop.hf.export`)
fill_mask.py                                a pipeline that passes the language and takes words as targets
xlmtrain.json                               text settings, counts, provenance, a fingerprint of what determines ids
de/ en/                                     one language each, with files of the same names
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from xlmtrain.config.families import Family
from xlmtrain.config.model import Activation, ModelConfig
from xlmtrain.config.prepare import TextConfig
from xlmtrain.data.format import fingerprint
from xlmtrain.errors import CheckpointError, damage_as
from xlmtrain.interop.bundle import PretrainedBundle, Provenance, trained_causally
from xlmtrain.interop.hf.families import (
    MODEL_TYPES,
    NumberedVocab,
    family_settings,
    from_family_weights,
    read_family,
    to_family_weights,
)
from xlmtrain.interop.hf.tokenizer import (
    hf_words,
    out_of_vocab_merges,
    read_own_tokenizer,
    read_tokenizer_json,
    read_vocab_json,
    tokenizer_config,
    tokenizer_json,
    write_own_tokenizer,
)
from xlmtrain.interop.xlm.conversion import BIAS as PREDICTION_BIAS
from xlmtrain.interop.xlm.conversion import OUTPUT as PREDICTION
from xlmtrain.interop.xlm.conversion import from_xlm_state_dict, model_config, to_xlm_state_dict
from xlmtrain.interop.xlm.pth import read_checkpoint_file
from xlmtrain.runtime.atomic_io import read_json, write_json
from xlmtrain.runtime.typed_json import typed
from xlmtrain.text.bpe import END_OF_WORD, Code
from xlmtrain.text.text_files import read_lines
from xlmtrain.text.tokenizer_json import SPECIAL_TOKENS, TokenizerVocab
from xlmtrain.text.vocab import CONTINUATION, SPECIALS, UNK, XLM_IDS, SpecialIds, Vocab

EXTRA = "xlmtrain.json"
ANY_LANGUAGE = "mul"
"""Language of a model that does not tell languages apart; ISO 639's code for several."""
TABLE, POSITIONS = "encoder.token_embeddings.weight", "encoder.position_embeddings.weight"
LANGUAGES, OUTPUT, BIAS = "encoder.language_embeddings.weight", "head.weight", "head.bias"
NEVER = -40.0
"""A logit whose softmax is below the rounding of fp32. The loss of such a target does not hide all others."""


def write_hf_folder(bundle: PretrainedBundle, directory: Path) -> None:
    """Write everything but the model card into ``directory``.

    A family other than XLM has no language embeddings in transformers: a model with them is in the subfolders only.
    """
    weights, config, xlm = dict(bundle.weights), bundle.config, bundle.config.family is Family.xlm
    # Symbols that the merges use and the vocabulary lacks: embedded as UNK and never predicted.
    unlisted = len(out_of_vocab_merges(bundle.vocab, bundle.codes)) if bundle.codes else 0
    unknown = weights[TABLE][bundle.vocab.special.unk].expand(unlisted, -1)
    rows = {TABLE: unknown, OUTPUT: torch.zeros_like(unknown), BIAS: torch.full((unlisted,), NEVER)}
    weights |= {name: torch.cat([weights[name], more]) for name, more in rows.items() if name in weights}
    tokenizers = {
        language: tokenizer_json(bundle.vocab, bundle.codes, language, bundle.text) if bundle.codes else ""
        for language in bundle.languages
    }
    vectors = weights.get(LANGUAGES)
    if xlm or vectors is None:
        _write_model(directory, bundle, weights, tokenizers[bundle.languages[0]])
    if len(bundle.languages) > 1 and (xlm or bundle.codes or vectors is not None):
        for number, (language, tokenizer) in enumerate(tokenizers.items()):
            vector = torch.zeros(config.dim) if vectors is None else vectors[number]
            shape, merged = with_language(config, weights, vector)
            _write_model(directory / language, replace(bundle, config=shape, languages=[language]), merged, tokenizer)
    if xlm and bundle.reads_text and not bundle.causal:
        shutil.copyfile(Path(__file__).with_name("fill_mask.py"), directory / "fill_mask.py")


def with_language(
    config: ModelConfig, weights: Mapping[str, torch.Tensor], vector: torch.Tensor
) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
    """Return the model with the embedding ``vector`` (D,) of one language in place of language embeddings.

    It is added to every position embedding; without these to every token embedding, which unties the output layer.
    """
    merged = {name: weight for name, weight in weights.items() if name != LANGUAGES}
    config = replace(config, language_embeddings=False, sinusoidal_positions=False)
    if POSITIONS in merged:
        return config, {**merged, POSITIONS: merged[POSITIONS] + vector}
    if not vector.any():
        return config, merged
    untied = {TABLE: merged[TABLE] + vector, OUTPUT: merged.get(OUTPUT, merged[TABLE])}
    return replace(config, tie_embeddings=False), {**merged, **untied}


def _write_model(folder: Path, bundle: PretrainedBundle, weights: dict[str, torch.Tensor], tokenizer: str) -> None:
    """Write a folder that AutoModelForMaskedLM, AutoModel and AutoTokenizer load.

    ``tokenizer``: content of ``tokenizer.json``; empty for a model without BPE codes.
    """
    folder.mkdir(exist_ok=True)
    write_json(folder / "config.json", _config_json(bundle, len(weights[TABLE])))
    try:
        # Cloned: queries, keys and values are views of one tensor, which safetensors refuses.
        named = {name: weight.clone() for name, weight in _named_weights(bundle.config, weights).items()}
        save_file(named, folder / "model.safetensors", {"format": "pt"})
    except SafetensorError as error:  # for example a full disk
        raise OSError(str(error)) from None
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes files that only their owner can read
    if isinstance(bundle.vocab, NumberedVocab):
        return
    if isinstance(bundle.vocab, TokenizerVocab):
        write_own_tokenizer(bundle.vocab, folder, bundle.languages, bundle.config.max_positions)
        write_json(folder / EXTRA, _extra(bundle, {SPECIAL_TOKENS: bundle.vocab.names}))
        return
    write_json(folder / "vocab.json", {word: i for i, word in enumerate(hf_words(bundle.vocab))})
    write_json(folder / EXTRA, _extra(bundle, asdict(bundle.text)))
    if not tokenizer:
        return
    merges = "".join(f"{code.left} {code.right}\n" for code in bundle.codes)
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    settings = tokenizer_config(bundle.languages, bundle.config.max_positions, bundle.text)
    write_json(folder / "tokenizer_config.json", settings)


def _named_weights(config: ModelConfig, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights under transformers' names."""
    if config.family is not Family.xlm:
        return to_family_weights(weights, config)
    theirs = to_xlm_state_dict(weights)
    if config.tie_embeddings:
        del theirs[PREDICTION]
    return {name if name.startswith("pred_layer") else f"transformer.{name}": t for name, t in theirs.items()}


def _extra(bundle: PretrainedBundle, text: dict[str, Any]) -> dict[str, Any]:
    """Return what transformers does not keep, and the fingerprint."""
    counts, provenance = bundle.vocab.counts.tolist(), bundle.provenance.public()
    mark = _fingerprint(bundle.vocab, bundle.codes, text, bundle.languages)
    return {"text": text, "counts": counts, "provenance": provenance, "fingerprint": mark}


def _config_json(bundle: PretrainedBundle, vocab_size: int) -> dict[str, Any]:
    config, special = bundle.config, bundle.vocab.special
    languages = {
        "vocab_size": vocab_size,
        "causal": bundle.causal,
        "lang2id": {name: i for i, name in enumerate(bundle.languages)},
        "id2lang": dict(enumerate(bundle.languages)),
        "torch_dtype": "float32",
    }
    if config.family is not Family.xlm:
        roles = {"bos": special.bos, "cls": special.bos, "eos": special.eos, "sep": special.eos, "pad": special.pad}
        ids = {f"{role}_token_id": i for role, i in roles.items() if i >= 0}
        return {**family_settings(config, special.pad), **languages, **ids}
    roles = {"bos": special.bos if isinstance(bundle.vocab, TokenizerVocab) else 0}
    roles |= {"eos": special.eos, "pad": special.pad}
    return {
        **languages,
        "model_type": "xlm",
        "architectures": ["XLMWithLMHeadModel"],
        "emb_dim": config.dim,
        "n_layers": config.layers,
        "n_heads": config.heads,
        "max_position_embeddings": config.max_positions,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "gelu_activation": config.activation is Activation.gelu,
        "sinusoidal_embeddings": config.sinusoidal_positions,
        "layer_norm_eps": config.norm_eps,
        "embed_init_std": config.dim**-0.5,
        "tie_word_embeddings": config.tie_embeddings,
        "asm": False,
        "is_encoder": True,
        "use_lang_emb": config.language_embeddings,
        "n_langs": len(bundle.languages),
        "lang_id": 0,
        # transformers 5 reads the first name of each, transformers 4 the second.
        **{f"{role}_{kind}": i for role, i in roles.items() for kind in ("token_id", "index")},
        "unk_index": max(special.unk, 0),
        "mask_index": special.mask,
        "mask_token_id": special.mask,
    }


_OTHER_NAMES = {"hidden_size": "emb_dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
_DEFAULTS = {
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "gelu_activation": True,
    "sinusoidal_embeddings": False,
    "use_lang_emb": True,
}


def read_hf_folder(path: Path) -> PretrainedBundle:
    """Read a folder written by :func:`write_hf_folder` or by transformers.

    Raises CheckpointError if it is of another architecture, has no output layer, or a file is missing or damaged. A
    family other than XLM may lack its prediction head, and the text processing: then its vocabulary has numbers only.
    """
    with damage_as(CheckpointError, f"{path}: incomplete or damaged"):
        settings = read_json(path / "config.json")
        extra = read_json(path / EXTRA) if (path / EXTRA).is_file() else {}
        xlm = settings["model_type"] == "xlm"
        if not xlm and settings["model_type"] not in MODEL_TYPES:
            raise ValueError(
                f"config.json: model_type is {settings['model_type']!r}; there are xlm, {', '.join(MODEL_TYPES)}"
            )
        read = _read_xlm if xlm else _read_family
        config, ours, special = read(path, settings)
        languages = sorted(found, key=found.__getitem__) if (found := settings.get("lang2id")) else [ANY_LANGUAGE]
        counts, codes, text = extra.get("counts", []), list[Code](), TextConfig()
        vocab: Vocab
        # Beside a vocab.json of XLM, tokenizer.json may hold its rules in a form that is not read.
        own = None if xlm and (path / "vocab.json").is_file() else read_own_tokenizer(path, len(ours[TABLE]))
        if own:
            vocab = own.with_counts(np.array(counts, np.int64)) if len(counts) == len(own) else own
            _check_fingerprint(extra, vocab, codes, languages)
        elif xlm or counts:
            words, codes, text = _read_tokenizer(path)
            if counts:
                _check_fingerprint(extra, _vocab(words[: len(counts)], counts), codes, languages)
                text = typed(TextConfig, extra["text"], "text")
            vocab = _vocab(words[: _listed(ours, len(words))], counts)
            ours |= {name: ours[name][: len(vocab)] for name in (TABLE, OUTPUT, BIAS) if name in ours}
        else:
            vocab = NumberedVocab(len(ours[TABLE]), special)
        if xlm:
            _check_special_ids(settings, vocab.special)
        elif config.parts.after_pad and vocab.special.pad != special.pad:
            raise ValueError(f"config.json: pad_token_id is {special.pad}, but the tokenizer's is {vocab.special.pad}")
        origin = extra.get("provenance", extra.get("history", {}))  # "history" in version 0.1.0
        provenance = Provenance.from_json(origin, str(path))
        # Version 0.1.0 wrote causal=false for every model.
        causal = settings.get("causal") is True or trained_causally(provenance.settings)
        return PretrainedBundle(config, languages, vocab, ours, text, codes, provenance, causal)


def _read_xlm(path: Path, settings: dict[str, Any]) -> tuple[ModelConfig, dict[str, torch.Tensor], SpecialIds]:
    _check_architecture(settings)
    weights = {name.removeprefix("transformer."): weight for name, weight in _read_weights(path).items()}
    if PREDICTION_BIAS not in weights:
        raise ValueError("no output layer; it is an encoder or a classifier, and only XLMWithLMHeadModel can be read")
    params = {_OTHER_NAMES.get(name, name): value for name, value in settings.items()}
    tied = settings.get("tie_word_embeddings", True)
    config = model_config({**_DEFAULTS, **params, "share_inout_emb": tied}, weights)
    return config, from_xlm_state_dict(weights, untied=not config.tie_embeddings), XLM_IDS


def _read_family(path: Path, settings: dict[str, Any]) -> tuple[ModelConfig, dict[str, torch.Tensor], SpecialIds]:
    weights = _read_weights(path)
    config, special = read_family(settings, weights)
    return config, from_family_weights(weights, config, path), special


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return all weights in fp32. Raises ValueError if a number is not finite."""
    parts = (load_file(f) if f.suffix == ".safetensors" else read_checkpoint_file(f) for f in _weight_files(path))
    weights = {name: weight.float() for part in parts for name, weight in part.items()}
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise ValueError(f"{name} has numbers that are not finite; training diverged, or the file is damaged")
    return weights


def _check_fingerprint(extra: dict[str, Any], exported: Vocab, codes: Sequence[Code], languages: Sequence[str]) -> None:
    """Raise ValueError if the parts that determine ids changed since the export."""
    if "fingerprint" not in extra:  # neither version 0.1.0 nor transformers writes one
        return
    if extra["fingerprint"] != _fingerprint(exported, codes, extra["text"], languages):
        raise ValueError(
            f"vocabulary, merges, the languages in config.json or the text settings in {EXTRA} are not those "
            "that the model was exported with; export it again"
        )


def _weight_files(path: Path) -> list[Path]:
    """Return the files of the weights. transformers divides large models, and lists the parts in an index."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = path / f"{name}.index.json"
        if (path / name).is_file():
            return [path / name]
        if index.is_file():
            return sorted({path / Path(part).name for part in read_json(index)["weight_map"].values()})
    raise ValueError("no model.safetensors and no pytorch_model.bin")


def _fingerprint(vocab: Vocab, codes: Sequence[Code], text: dict[str, Any], languages: Sequence[str]) -> str:
    """Return SHA-256 in hex of everything that determines the ids of raw text, and the languages."""
    pairs = "".join(f"{code.left} {code.right}\n" for code in codes)
    return fingerprint(vocab.fingerprint, hashlib.sha256(pairs.encode()).hexdigest(), text, {}, languages)


def _check_architecture(settings: dict[str, Any]) -> None:
    """Raise ValueError for an architecture that :class:`LanguageModel` does not have."""
    fixed = {"model_type": "xlm", "asm": False, "is_encoder": True, "layer_norm_eps": ModelConfig.norm_eps}
    _check_settings({key: settings.get(key) for key in fixed}, fixed)


def _check_special_ids(settings: dict[str, Any], special: SpecialIds) -> None:
    """Raise ValueError for special ids other than those of the vocabulary."""
    found = {key: settings.get(key) for key in ("unk_index", "mask_index")}
    found |= {name: settings.get(f"{name}_token_id", settings.get(f"{name}_index")) for name in ("eos", "pad")}
    fixed = {"unk_index": max(special.unk, 0), "mask_index": special.mask, "eos": special.eos, "pad": special.pad}
    _check_settings(found, fixed)


def _check_settings(found: dict[str, Any], fixed: dict[str, Any]) -> None:
    for key, value in found.items():
        if value not in (None, fixed[key]):
            raise ValueError(f"config.json: {key} is {value!r}, only {fixed[key]!r} can be read")


def _read_tokenizer(path: Path) -> tuple[list[str], list[Code], TextConfig]:
    """Return words, codes and text settings: of ``tokenizer.json`` if its rules are ours, or of the older files."""
    tokenizer, vocab, config = path / "tokenizer.json", path / "vocab.json", path / "tokenizer_config.json"
    if not tokenizer.is_file() and not vocab.is_file():
        raise ValueError("no tokenizer.json and no vocab.json; save the tokenizer into the folder, too")
    if tokenizer.is_file() and (ours := read_tokenizer_json(tokenizer)):
        return ours
    if not vocab.is_file():
        raise ValueError("tokenizer.json: not the tokenizer that this program exported, and there is no vocab.json")
    # True is the default of transformers' XLMTokenizer.
    both = bool((read_json(config) if config.is_file() else {}).get("do_lowercase_and_remove_accent", True))
    return read_vocab_json(vocab), _codes(path / "merges.txt"), TextConfig(lowercase=both, remove_accents=both)


def _listed(weights: dict[str, torch.Tensor], words: int) -> int:
    """Return how many of the words are the vocabulary, and not symbols that are read as UNK and never predicted.

    Those come last. Training with transformers may have given them embeddings of their own: then they are words, too.
    """
    never = (weights[BIAS][:words] < NEVER / 2).long()
    listed = words - int(never.flip(0).cumprod(0).sum())
    rows = weights[TABLE][listed:words]
    return listed if torch.equal(rows, weights[TABLE][UNK].expand_as(rows)) else words


def _vocab(words: list[str], counts: list[int]) -> Vocab:
    """Return the vocabulary of Hugging Face's ``words``: ``word</w>`` becomes ``word``, ``part`` becomes ``part@@``."""
    if tuple(words[: len(SPECIALS)]) != SPECIALS:
        raise ValueError(f"the vocabulary does not begin with the {len(SPECIALS)} special symbols")
    if len(counts) > len(words):
        raise ValueError(f"{EXTRA}: {len(counts)} counts for {len(words)} words")
    ours = [word.removesuffix(END_OF_WORD) if word.endswith(END_OF_WORD) else word + CONTINUATION for word in words]
    return Vocab(list(zip(ours, counts + [0] * (len(words) - len(counts))))[len(SPECIALS) :])


def _codes(path: Path) -> list[Code]:
    """Read lines ``left right``; a line ``#version`` is skipped. The counts are not in the file: 0."""
    if not path.is_file():
        return []
    lines = (line for _, line in read_lines(path, "merges"))
    pairs = [line.split(" ")[:2] for line in lines if line and not line.startswith("#version")]
    return [Code(left, right, 0) for left, right in pairs]
