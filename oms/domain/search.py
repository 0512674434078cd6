"""What an associate types: words as a question to the index of words. Pure."""

import re

WORDS_MAX = 8
TEXT_MAX = 200
_CUT = re.compile(r"[\s\]\[\\/_.,:;()+#&*|!<>\"'\-]+")
"""Where words end: as the index of words cuts them (`sku_words` of the schema)."""


def words_of(text: str) -> list[str]:
    """The words of a text, each once, as typed."""
    return list(dict.fromkeys(word for word in _CUT.split(text.strip()) if word))


def word_query(text: str) -> str | None:
    """All of the words, each as the beginning of one, as PostgreSQL's `tsquery`; None where there are none to ask for.

    word_query("red sh")    # → "'red':* & 'sh':*"
    """
    words = words_of(text)[:WORDS_MAX]
    if sum(map(len, words)) < 2:
        return None
    return " & ".join(f"'{word}':*" for word in words)
