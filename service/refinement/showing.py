"""Showing a text while it is written."""

from service.engines.base import Thought
from service.engines.thoughts import str_of
from service.refinement.accounting import Emit
from service.refinement.candidate import Form
from service.refinement.events import TextBegun, TextDelta, TextReasoningDelta
from service.refinement.writing import Show


def show_text(emit: Emit, round: int, index: int, form: Form, parent: str | None) -> Show:  # noqa: A002
    """What emits the pieces of one text, and before the first of them its beginning.

    - ``round``, ``index``: its place. Another text for the same place takes its place.
    - ``form``, ``parent``: as the candidate has them, if it becomes one
    """
    begun = False

    def show(piece: str | Thought) -> None:
        nonlocal begun
        if not begun:
            begun = True
            emit(TextBegun(round, index, form, parent))
        delta = TextReasoningDelta if isinstance(piece, Thought) else TextDelta
        emit(delta(round, index, str_of(piece)))

    return show
