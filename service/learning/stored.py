"""Stored traces as the material of lessons: what a service wrote for its callers, and what they said of it.

A prompt is the conversation that the first draft was asked with, and its rules are the hard verifiers of the request
and of its task. Whether a text follows them is found out again when lessons are made.

Rules that only the evaluators state would teach a habit: a model that learns to be brief where nobody asks for it. So
the rules' sentences are added to the prompt, unless it has them, or nearly all prompts of the task have the same rule:
then the habit is what is wanted.

Tokens are kept only if the base wrote the text, or an adapter of it. Texts of other models are lessons too, and are
tokenized by the base's own tokenizer. What the default redaction has changed is left out, because a model would learn
to write ``[email]``.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from service.learning.collected import Collected, Preference, Source, Text
from service.learning.prompts import Message, Prompt

if TYPE_CHECKING:  # nothing of it is imported where traces are off
    from service.traces.store import Feedback, TraceStore, WholeTrace

PAGE_BYTES = 4_194_304
"""Of traces that are read at once."""
HOUSE_SHARE, HOUSE_LEAST = 0.95, 20
"""A rule that such a share of a task's prompts has, of at least that number, is a rule of the house."""
CLEAR_GAIN = 0.2
"""The least difference of two scores that makes one text better."""

_REDACTED = re.compile(r"\[(?:email|phone|card|key)\]")
_IMAGES = "prompts with images, which are not stored"
_NOT_ASKED = "conversations that do not end with the user"


@dataclass
class Gathered:
    """What stored traces give. ``left_out``: how many prompts give nothing, by the reason. ``foreign``: how many
    traces each other model has written, whose tokens are not the base's."""

    collected: list[Collected] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    foreign: Counter[str] = field(default_factory=Counter)


async def gather_traces(
    store: "TraceStore",
    own: Collection[str],
    trusted: Collection[str] = (),
    withdrawn: Collection[str] = (),
) -> Gathered:
    """The material in a store.

    own: the names of the base and of its adapters. trusted: callers whose lessons are not capped. withdrawn: the ids of
    traces that are not to be used. Raises StoreUnavailable.
    """
    from service.traces.store import EVERYTHING

    found = Gathered()
    for caller in await store.callers():
        after: str | None = None
        while page := await store.page(caller, EVERYTHING, after, PAGE_BYTES):
            for whole in page:
                if whole.trace.summary.id not in withdrawn:
                    _add(found, whole, own, "" if caller in trusted else caller)
            after = page[-1].trace.summary.id
    found.collected = list(_state_rules(found.collected, found.tasks))
    return found


def _add(found: Gathered, whole: "WholeTrace", own: Collection[str], client: str) -> None:
    summary, document = whole.trace.summary, whole.trace.document
    is_own = summary.model in own
    if not is_own:
        found.foreign[summary.model] += 1
    for index, messages in enumerate(document["prompts"]):
        if any(message["images"] for message in messages):
            found.left_out[_IMAGES] += 1
        elif not messages or messages[-1]["role"] != "user":
            found.left_out[_NOT_ASKED] += 1
        else:
            found.tasks.append(summary.task)
            found.collected.append(_Reader(whole, index, keeps_tokens=is_own).collected(client))


class _Reader:
    """Reads what a trace says of one of its prompts."""

    def __init__(self, whole: "WholeTrace", prompt: int, *, keeps_tokens: bool) -> None:
        self._summary, self._document = whole.trace.summary, whole.trace.document
        self._prompt = prompt
        self._keeps_tokens = keeps_tokens
        self._candidates = [
            candidate
            for candidate in self._document["candidates"]
            if candidate["prompt"] == prompt and not _REDACTED.search(candidate["text"])
        ]
        self._places = {candidate["id"]: place for place, candidate in enumerate(self._candidates)}
        self._feedback: Sequence[Feedback] = [given for given in whole.feedback if given.candidate in self._places]

    def collected(self, client: str) -> Collected:
        edits = [given for given in self._feedback if given.kind == "edit" and not _REDACTED.search(given.value)]
        texts = [self._text(candidate) for candidate in self._candidates]
        texts += [Text(text=given.value, source="edit", parent=self._places[given.candidate]) for given in edits]
        return Collected(
            prompt=self._read_prompt(),
            texts=tuple(texts),
            preferences=tuple(self._preferences(edits)),
            trace=self._summary.id,
            client=client,
        )

    def _read_prompt(self) -> Prompt:
        stated = self._document.get("evaluators", self._document["request"].get("evaluators", ()))
        prompt = Prompt(
            id=f"{self._summary.id}.{self._prompt}",
            messages=tuple(Message.model_validate(message) for message in self._document["prompts"][self._prompt]),
            evaluators=tuple(evaluator for evaluator in stated if _is_hard(evaluator)),
        )
        return prompt.model_copy(update={"kinds": kinds_of(prompt)})

    def _text(self, candidate: Mapping[str, Any]) -> Text:
        ids = candidate.get("token_ids") if self._keeps_tokens else None
        thumbs = {given.candidate: given.value for given in self._feedback if given.kind == "thumb"}
        return Text(
            text=candidate["text"],
            source=self._source(candidate),
            finish_reason=candidate["finish_reason"],
            parent=self._places.get(self._made_from(candidate)),
            token_ids=tuple(ids) if ids else None,
            rating=thumbs.get(candidate["id"]),
        )

    def _source(self, candidate: Mapping[str, Any]) -> Source:
        if self._summary.kind == "critique" or self._is_callers_draft(candidate):
            return "given"
        if candidate["form"] == "repair":
            return "repair"
        if candidate.get("enforced"):
            return "constrained"
        return "free" if candidate["form"] == "draft" else "revision"

    def _is_callers_draft(self, candidate: Mapping[str, Any]) -> bool:
        draft = self._document["request"].get("draft")
        return candidate["form"] == "draft" and draft is not None and candidate["text"] == draft

    def _made_from(self, candidate: Mapping[str, Any]) -> str:
        """The candidate that was changed, or of a redraft the best one until then, whose faults were told."""
        if candidate["parent"] is not None or candidate["form"] != "redraft":
            return candidate["parent"] or ""
        best = {ended["round"]: ended["incumbent"] for ended in self._document.get("rounds", ())}
        return best.get(candidate["round"] - 1) or ""

    def _preferences(self, edits: "Sequence[Feedback]") -> Iterator[Preference]:
        for place, given in enumerate(edits, len(self._candidates)):
            yield Preference(chosen=place, rejected=self._places[given.candidate])
        for given in self._feedback:
            if given.kind == "choice":
                for other in given.value:
                    if other in self._places:
                        yield Preference(chosen=self._places[given.candidate], rejected=self._places[other])
        scores = [(self._places[given.candidate], given.value) for given in self._feedback if given.kind == "score"]
        for chosen, high in scores:
            for rejected, low in scores:
                if high - low >= CLEAR_GAIN:
                    yield Preference(chosen=chosen, rejected=rejected)


def kinds_of(prompt: Prompt) -> tuple[str, ...]:
    """The names of a prompt's rules, as far as a text alone shows whether they are followed."""
    return tuple(sorted({check.rule for verifier in prompt.verifiers or () for check in verifier.check("")}))


def _is_hard(evaluator: Mapping[str, Any]) -> bool:
    """Whether a text that fails is a bad one. Of a request, only judges are soft unless it says so."""
    hard = evaluator.get("hard")
    return evaluator.get("type") not in ("judge", "perplexity", "similarity") if hard is None else bool(hard)


def _state_rules(collected: Sequence[Collected], tasks: Sequence[str]) -> Iterator[Collected]:
    """Those prompts with the sentences of their rules."""
    asked = Counter(tasks)
    having = Counter(
        (task, rule) for each, task in zip(collected, tasks, strict=True) for rule in set(_rules(each.prompt))
    )
    for each, task in zip(collected, tasks, strict=True):
        house = {
            rule
            for rule in _rules(each.prompt)
            if asked[task] >= HOUSE_LEAST and having[task, rule] >= HOUSE_SHARE * asked[task]
        }
        yield each.model_copy(update={"prompt": _with_rules(each.prompt, house)})


def _rules(prompt: Prompt) -> Sequence[str]:
    return [json.dumps(evaluator, sort_keys=True) for evaluator in prompt.evaluators]


def _with_rules(prompt: Prompt, house: Collection[str]) -> Prompt:
    said = " ".join(prompt.messages_given).casefold()
    sentences = [
        check.instruction
        for rule, verifier in zip(_rules(prompt), prompt.verifiers or (), strict=False)
        if rule not in house
        for check in verifier.check("")
        if check.instruction.casefold() not in said
    ]
    if not sentences:
        return prompt
    *before, last = prompt.messages
    asked = last.model_copy(update={"content": "\n\n".join((last.content, "\n".join(dict.fromkeys(sentences))))})
    return Prompt(**{**prompt.model_dump(), "messages": (*before, asked)})
