"""Text to word pieces, as the model was trained to read them.

Case, accents and runs of white space make no difference to the pieces of a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from engine.errors import InvalidInputError
from engine.model_files import TOKENISER_FILE, damaged

MAX_PIECES = 256
"""Pieces of a text that are embedded, [CLS] and [SEP] included; the rest is cut off."""


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

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of at most `MAX_PIECES` pieces for each text, [CLS] and [SEP] included.

        Raises:
            InvalidInputError: a text that is not valid Unicode (a lone surrogate).
        """
        for text in texts:
            _require_unicode(text)
        return [encoding.ids for encoding in self._cut.encode_batch_fast(list(texts))]

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
