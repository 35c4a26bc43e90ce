"""Finds a text that repeats itself without end, as small models do."""

LONGEST_PART = 300
"""Characters of the part that is repeated."""
_TIMES = 4
_LEAST = 120
"""Characters of all repeats together."""


def start_of_loop(text: str) -> int | None:
    """Where the second of the equal parts begins of which the end of the text consists; None if it is not like that.

    The part has a letter, and appears at least four times in a row.

    >>> start_of_loop("Well. " + "It is so. " * 20)
    14
    """
    for period in range(1, min(LONGEST_PART, len(text) // _TIMES) + 1):
        times = max(_TIMES, -(-_LEAST // period))
        size = period * times
        if size <= len(text) and text[-size:-period] == text[-size + period :]:
            if not any(map(str.isalpha, text[-period:])):
                return None
            start = len(text) - size
            while start > 0 and text[start - 1] == text[start - 1 + period]:
                start -= 1
            return start + period
    return None
