"""A Unigram tokenizer in T5's layout, with sentinels, trained on texts in Chinese and English."""

import json
import math
from collections import Counter
from collections.abc import Sequence

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

PADDING, END, UNKNOWN = "<pad>", "</s>", "<unk>"
SENTINELS = 100
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
# What a tokenizer has before it has learned anything, and as many pieces as make it worth the name.
LEAST_VOCABULARY = 3 + len(_BYTES) + SENTINELS + 64
# Pieces never cross these: a Chinese character, a digit, or a run of punctuation stands alone, a word keeps the mark of
# the space before it. Frequent runs of Chinese characters would else become pieces that bind two attributes.
_ALONE = r"\p{Han}|\p{N}|[^\s\p{L}\p{N}\p{M}▁]+"


def sentinel(number: int) -> str:
    """What stands for the span of that number, from 0 on."""
    return f"<extra_id_{number}>"


def train_unigram(texts: Sequence[str], vocabulary: int) -> tokenizers.Tokenizer:
    """A tokenizer of at most `vocabulary` tokens; the same texts give the same one.

    Ids as T5 has them (Raffel et al. 2020, arXiv 1910.10683): 0 padding, 1 end, 2 unknown; then 256 bytes, which spell
    every character that is not a piece; then pieces; the sentinels are last, the first one at the very end. Texts are
    split into the likeliest pieces (Kudo 2018, arXiv 1804.10959). The pieces are those of byte-pair encoding, each as
    likely as it is frequent: the library's own Unigram trainer counts each different word once, so that of texts of
    few words it learns next to nothing, and two runs of it differ.

    Raises:
      ValueError: a vocabulary of less than LEAST_VOCABULARY.
    """
    if vocabulary < LEAST_VOCABULARY:
        raise ValueError(
            f"a vocabulary of {vocabulary}: expected at least {LEAST_VOCABULARY}, for the bytes, {SENTINELS} sentinels "
            "and some pieces"
        )
    counts = _piece_counts(texts, vocabulary - 3 - len(_BYTES) - SENTINELS)
    total = math.log(sum(counts.values()))
    pieces = [(piece, math.log(count) - total) for piece, count in sorted(counts.items(), key=lambda x: (-x[1], x[0]))]
    never = min(score for _, score in pieces) - 10
    sentinels = [sentinel(i) for i in reversed(range(SENTINELS))]
    rows = [(token, 0.0) for token in (PADDING, END, UNKNOWN)]
    rows += [(token, never) for token in _BYTES] + pieces + [(token, 0.0) for token in sentinels]
    words = tokenizers.Tokenizer(models.Unigram(rows, unk_id=2, byte_fallback=True))
    words.normalizer, words.pre_tokenizer = _normalizer(), _pre_tokenizer()
    words.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    words.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, 1)]
    )
    words.add_special_tokens([PADDING, END, UNKNOWN, *sentinels])
    return words


def spelled_as_bytes(words: tokenizers.Tokenizer, texts: Sequence[str]) -> set[str]:
    """Characters of the texts that are no piece of the vocabulary."""
    normal, pieces = _normalizer(), _pre_tokenizer()
    seen = {c for text in texts for piece, _ in pieces.pre_tokenize_str(normal.normalize_str(text)) for c in piece}
    return seen - words.get_vocab().keys()


def _piece_counts(texts: Sequence[str], size: int) -> dict[str, float]:
    """At most `size` pieces, and how often each is needed; those on the way to longer ones may be needed never."""
    pairs = tokenizers.Tokenizer(models.BPE())
    pairs.normalizer, pairs.pre_tokenizer = _normalizer(), _pre_tokenizer()
    # Rare characters are left to the bytes. The library's own limit draws lots among those that are equally rare.
    characters = Counter()
    for text in texts:
        for piece, _ in pairs.pre_tokenizer.pre_tokenize_str(pairs.normalizer.normalize_str(text)):
            characters.update(piece)
    alphabet = sorted(characters, key=lambda c: (-characters[c], c))[: size // 2]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        min_frequency=2,
        show_progress=False,
    )
    pairs.train_from_iterator(texts, trainer)
    counts = dict.fromkeys(pairs.get_vocab(), 0.1)
    for start in range(0, len(texts), 1024):
        for found in pairs.encode_batch_fast(list(texts[start : start + 1024])):
            for piece in found.tokens:
                if piece in counts:  # A character that is none is an empty token.
                    counts[piece] += 1
    return counts or {"▁": 1.0}


def _normalizer() -> normalizers.Normalizer:
    """NFKC, lower case, single spaces, none beside a Chinese character."""
    return normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Replace(Regex(r"(?<=\p{Han}) | (?=\p{Han})"), ""),
            normalizers.Strip(),
        ]
    )


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Split(Regex(_ALONE), behavior="isolated")]
    )


def to_json(words: tokenizers.Tokenizer) -> dict:
    """The tokenizer as tokenizer.json has it."""
    return json.loads(words.to_str())


def from_json(content: dict) -> tokenizers.Tokenizer:
    """The tokenizer of `to_json`'s dict."""
    return tokenizers.Tokenizer.from_str(json.dumps(content))
