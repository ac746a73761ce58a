"""Text to word pieces, as the model was trained to read them.

Case, accents and runs of white space make no difference to the pieces of a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from engine.errors import InvalidInputError
from engine.model.files import TOKENISER_FILE, damaged

MAX_PIECES = 256
"""Pieces of a text that are embedded, [CLS] and [SEP] included; the rest is cut off."""

UNKNOWN_SHARE = 0.5
"""Of a text's characters, from which on the model knows too little of it to say anything."""

_STRIDE = 190
_UNKNOWN_PIECE = "[UNK]"
_SPECIAL_PIECES = 2  # [CLS] and [SEP]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFacts:
    """What is known of a text before it is embedded."""

    n_windows: int
    is_known: bool


class Tokeniser:
    """Reads a model directory's tokeniser. Safe to use from several threads."""

    def __init__(self, model_dir: Path) -> None:
        """Load the tokeniser.

        Raises:
            ModelNotFoundError: it is missing or cannot be read; says what to run.
        """
        path = model_dir / TOKENISER_FILE
        try:
            content = path.read_text(encoding="utf-8")
            self._whole = Tokenizer.from_str(content)
            self._cut = Tokenizer.from_str(content)
        except Exception as exc:
            raise damaged(model_dir, TOKENISER_FILE) from exc
        # The file ships with truncation and padding to 128 pieces.
        self._whole.no_truncation()
        self._whole.no_padding()
        self._cut.enable_truncation(MAX_PIECES)
        self._cut.no_padding()
        self._unknown_id = self._whole.token_to_id(_UNKNOWN_PIECE) or 0

    def facts(self, texts: Sequence[str]) -> list[TextFacts]:
        """How long texts are, and whether the model knows what their first windows say."""
        encoded = self._whole.encode_batch_fast(list(texts))
        return [
            TextFacts(
                n_windows=1 + len(self._window_starts(len(encoding.ids) - 2)),
                is_known=self.knows(text, encoding.ids[:MAX_PIECES]),
            )
            for text, encoding in zip(texts, encoded, strict=True)
        ]

    @staticmethod
    def _window_starts(n_pieces: int) -> range:
        """Where the windows past the first begin in so many pieces, less [CLS] and [SEP]."""
        return range(_STRIDE, max(n_pieces - (MAX_PIECES - 2), 0) + _STRIDE, _STRIDE)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of at most `MAX_PIECES` pieces for each text, [CLS] and [SEP] included.

        Raises:
            InvalidInputError: a text that is not valid Unicode (a lone surrogate).
        """
        for text in texts:
            _require_unicode(text)
        return [encoding.ids for encoding in self._cut.encode_batch_fast(list(texts))]

    def later_windows(self, text: str, n: int) -> list[list[int]]:
        """The ids of at most n windows past the first, [CLS] and [SEP] included.

        Windows of as many pieces as are embedded at once, each beginning `_STRIDE` after the one
        before: what one cuts in two, the next has whole.
        """
        first, *pieces, last = self._whole.encode_batch_fast([text])[0].ids
        size = MAX_PIECES - 2
        starts = self._window_starts(len(pieces))[:n]
        return [[first, *pieces[start : start + size], last] for start in starts]

    def knows(self, text: str, ids: list[int]) -> bool:
        """Whether the model can say anything of a text with these ids (of `encode`).

        What it knows no piece of is one and the same to it: a word of a script that it has not
        read, an emoji, a run of over 100 characters; so are all texts without a piece.
        """
        if self._unknown_id not in ids:
            return len(ids) > _SPECIAL_PIECES
        encoding = self._cut.encode(text)
        lengths = [end - start for start, end in encoding.offsets]
        unknown = sum(
            length
            for length, piece in zip(lengths, encoding.ids, strict=True)
            if piece == self._unknown_id
        )
        return unknown < UNKNOWN_SHARE * sum(lengths)

    def knows_most(self, ids: list[int]) -> bool:
        """The same of a window past the first, by pieces alone."""
        return ids.count(self._unknown_id) < UNKNOWN_SHARE * len(ids)

    def words(self, text: str, n_pieces: int) -> tuple[list[str], list[int]]:
        """The words of a text and, for each of its first pieces, the number of its word.

        A piece of no word ([CLS], [SEP]) has the number -1.
        """
        encoding = self._cut.encode(text)
        numbers = [-1 if n is None else n for n in encoding.word_ids[:n_pieces]]
        spans: dict[int, tuple[int, int]] = {}
        for number, (start, end) in zip(numbers, encoding.offsets, strict=False):
            if number >= 0:
                spans[number] = (spans.get(number, (start, end))[0], end)
        return [text[slice(*spans[n])] for n in range(len(spans))], numbers

    def count_pieces(self, text: str) -> int:
        """Pieces of a whole text, [CLS] and [SEP] included; compare with `MAX_PIECES`.

        Raises:
            InvalidInputError: the text is not valid Unicode (a lone surrogate).
        """
        _require_unicode(text)
        return len(self._whole.encode(text))


def _require_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidInputError(
            f"text is not valid Unicode: lone surrogate at character {exc.start}"
        ) from exc
