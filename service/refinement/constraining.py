"""What texts are sampled under: the rules of a program's verifiers as grammars, proven before they are used.

A text is drafted freely, or under rules that leave the model most of what it would write. All rules that can be stated
go to every second of several drafts, and to revisions, which are conditioned on what failed in words: draft-conditioned
constrained decoding (arXiv 2603.03305). The verifiers still judge every text.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import regex

from service.concurrency import SerialThread
from service.constraints.algebra import Compiled, Constraint, Contradiction, Distortion, LeftOut, Unstated
from service.constraints.compile import compile_constraints
from service.constraints.plan import needs_words
from service.engines.base import Completion, Engine, Sample, Sampling, grammar
from service.engines.conversation import Conversation
from service.errors import InvalidRequest
from service.evaluators.base import Evaluator, gather_constraints
from service.evaluators.text.language import Language
from service.refinement.branching import Expansion
from service.refinement.candidate import Assessment, Candidate
from service.refinement.landing import NEVER_PROSE
from service.refinement.program import Constraints

NO_GRAMMARS = "the engine takes no grammars"
BEYOND_LIMITS = "together with the others it is beyond the decoder's limits"
BROKEN = "the decoder did not keep to it"
UNSPACED_LANGUAGES = frozenset(("zh", "ja", "th", "lo", "km", "my", "dz", "bo"))
_LETTER = regex.compile(r"\p{L}")
_UNSPACED = regex.compile(
    r"(?V1)[\p{L}&&[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]]"
)


class Constraining:
    """Compiles what a program's texts are sampled under, once for each kind of text."""

    def __init__(
        self,
        evaluators: Sequence[Evaluator],
        mode: Constraints,
        sampling: Sampling,
        engine: Engine,
        thread: SerialThread,
        *,
        spaced: bool = True,
    ) -> None:
        """``spaced``: whether the texts will be in a script with spaces between words."""
        self._mode = mode
        self._spaced = spaced
        self._prose = not any(evaluator.type in NEVER_PROSE for evaluator in evaluators)
        self._constraints = () if mode == "off" or sampling.choices else gather_constraints(evaluators)
        self._sampling = sampling
        self._engine = engine
        self._thread = thread
        self._compiled: dict[Distortion, Compiled] = {}
        self._compiling = asyncio.Lock()

    async def of(self, expansion: Expansion) -> Compiled | None:
        """What the texts of an expansion are sampled under; None for texts that are sampled freely."""
        most = self._most(expansion)
        if most is None or not self._constraints:
            return None
        async with self._compiling:
            if most not in self._compiled:
                self._compiled[most] = await self._compile(most)
        return self._compiled[most]

    def forget(self) -> None:
        """Compile again before the next text: the decoder has failed at a grammar, and the engine now refuses it."""
        self._compiled.clear()

    async def offers_choice(self) -> bool:
        """Whether revisions can be constrained and may also be free."""
        if self._mode == "always":
            return False
        revision = await self.of(Expansion("redraft"))
        return revision is not None and bool(revision.enforced)

    async def offers_bound_drafts(self) -> bool:
        """Whether drafts can be under rules that drafts are usually spared, and may also be without them."""
        if self._mode != "auto":
            return False
        draft = await self.of(Expansion("draft", bound=True))
        return draft is not None and any(each.distortion > Distortion.SLIGHT for each in draft.enforced)

    def _most(self, expansion: Expansion) -> Distortion | None:
        """The most that constraints may distort the texts of an expansion; None for no constraints."""
        if expansion.free or self._mode == "off":
            return None
        if expansion.form != "draft" or expansion.bound or self._mode == "always":
            return Distortion.STRONG
        return Distortion.SLIGHT if self._mode == "auto" else None

    async def _compile(self, most: Distortion) -> Compiled:
        """Compile all that can be enforced together. Of what the engine refuses, the end before ``max_tokens`` is left
        out first, and then the rules, from the worst distortion on."""
        if not self._engine.takes_grammars:
            return Compiled(left_out=tuple(LeftOut(constraint, NO_GRAMMARS) for constraint in self._constraints))
        kept, refused, lands = list(self._constraints), list[LeftOut](), self._sampling.landing is not False

        def leave_out(constraint: Constraint, reason: str) -> None:
            kept.remove(constraint)
            refused.append(LeftOut(constraint, reason))

        while True:
            try:
                compiled = await self._thread.run(self._compile_together, kept, most, lands)
                await self._prove(compiled)
            except Contradiction as error:  # a rule of the task against one of the request
                leave_out(error.second, error.reason)
            except InvalidRequest:
                if lands:
                    lands = False
                elif compiled.enforced:
                    leave_out(max(compiled.enforced, key=lambda each: each.distortion), BEYOND_LIMITS)
                else:
                    return Compiled(left_out=(*compiled.left_out, *refused))
            else:
                return replace(compiled, left_out=(*compiled.left_out, *refused))

    async def _prove(self, compiled: Compiled) -> None:
        """Raise InvalidRequest if the engine cannot sample under this."""
        form = compiled.grammar
        if compiled.schema is not None:
            form = await self._thread.run(grammar, compiled.schema)
        if form is not None:
            await self._engine.prove(form)

    def _compile_together(self, constraints: Sequence[Constraint], most: Distortion, lands: bool) -> Compiled:
        """Compile. The grammar only makes a text end before ``max_tokens`` if it has to know words for another rule:
        one that knows words also forbids what is not prose, such as indented code."""
        lands = lands and needs_words(
            [each for each in constraints if each.distortion <= most and not isinstance(each.demand, Unstated)]
        )
        return compile_constraints(
            constraints,
            max_tokens=self._sampling.max_tokens if lands else None,
            most=most,
            spaced=self._spaced,
            prose=self._prose,
        )


def will_have_spaces(request: str, evaluators: Sequence[Evaluator]) -> bool:
    """Whether an answer will be in a script with spaces between words: by the language that is demanded, or else by
    most letters of the request.

    >>> will_have_spaces("写一句关于海的话。", ())
    False
    """
    for evaluator in evaluators:
        if isinstance(evaluator, Language):
            return evaluator.code not in UNSPACED_LANGUAGES
    return 2 * len(_UNSPACED.findall(request)) <= len(_LETTER.findall(request))


def sample_under(conversation: Conversation, sampling: Sampling, under: Compiled | None) -> Sample:
    """The sample of a text under constraints."""
    if under is None:
        return Sample(conversation, sampling)
    if under.choices:
        sampling = replace(sampling, choices=under.choices)
    return Sample(conversation, sampling, under.schema, under.grammar, under.given_prefix)


def enforced_on(completion: Completion, under: Compiled | None) -> Compiled | None:
    """What was enforced in the end: nothing where the decoder failed."""
    if under is None or not completion.breaks_grammar:
        return under
    broken = tuple(LeftOut(constraint, BROKEN) for constraint in under.enforced)
    return Compiled(left_out=(*under.left_out, *broken))


def broken_rules(candidate: Candidate, assessment: Assessment, sampling: Sampling) -> Sequence[str]:
    """The rules that a candidate breaks although they were enforced. A text that was cut may break any."""
    if candidate.under is None or candidate.completion.finish_reason != "stop" or sampling.stop:
        return ()
    broken = {
        (index, issue.rule) for index, evaluation in enumerate(assessment.evaluations) for issue in evaluation.issues
    }
    return [
        constraint.rule
        for constraint in candidate.under.enforced
        if (constraint.evaluator, constraint.rule.partition(".")[2]) in broken
    ]
