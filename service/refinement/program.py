"""A request as the core sees it: everything is resolved, and nothing that matters is optional."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, Protocol

from service.engines.base import Completion, JsonSchema, Sampling
from service.engines.conversation import Conversation
from service.engines.relay import ChatBody, RelayFinish
from service.evaluators.base import Evaluator
from service.evaluators.model.judge import Criterion
from service.refinement.calibration import Calibration
from service.refinement.prompts import Prompts
from service.refinement.roles import Models
from service.refinement.scheduling import Lane
from service.refinement.trust import UNKNOWN, JudgeTrust

Carry = Literal["best", "last", "none", "adaptive"]
Critic = Literal["auto", "model", "factored", "evaluators", "none"]
Select = Literal["score", "pairwise", "vote"]
Constraints = Literal["off", "auto", "revisions", "always"]


class TextForm(Protocol):
    """What a finished text must be."""

    def unwrap(self, text: str) -> str:
        """The text without what some models put around it."""

    def misfit(self, text: str) -> str | None:
        """Why the text is not of the form; None if it is."""


@dataclass(frozen=True, slots=True)
class Search:
    """How the loop searches.

    drafts: candidates of round 0. beam: parents of a round. branches: revisions of a parent. rounds: how many
    after round 0. carry: edit the best parents, edit the newest, redraft without showing any, or let the scores
    decide for each of beam times branches candidates. memory: from how many earlier rounds the findings are
    repeated. critic: who says what to change: the model (which sees the evaluators' issues), the model by questions
    that it answers without seeing the text, the evaluators' issues alone, nobody, or (auto) the model where the
    evaluators have no issue. select: who picks the result: the scores, the model two at a time, or a vote.
    constraints: which texts are sampled under the verifiers' rules: none; revisions and every second of several drafts,
    the other drafts under those rules that hardly change what the model would write (auto); revisions alone; or every
    text under all that can be stated.
    repairs: whether code repairs what it can in texts that break rules (repairs.py). aborts: whether texts are stopped
    while they are written if they cannot get better (monitors.py).
    """

    drafts: int = 1
    beam: int = 1
    branches: int = 1
    rounds: int = 3
    carry: Carry = "best"
    memory: int = 0
    critic: Critic = "auto"
    select: Select = "score"
    constraints: Constraints = "auto"
    repairs: bool = True
    aborts: bool = True


PRESETS: Mapping[str, Search] = MappingProxyType(
    {
        "self_refine": Search(),  # Madaan et al. 2023, arXiv 2303.17651
        "best_of_n": Search(drafts=4, rounds=0),
        "vote": Search(drafts=5, rounds=0, select="vote"),  # Chen et al. 2023, arXiv 2311.17311
        "beam": Search(drafts=4, beam=2, branches=2),
        "reflexion": Search(carry="none", memory=3),  # Shinn et al. 2023, arXiv 2303.11366
        "constitutional": Search(),  # Bai et al. 2022, arXiv 2212.08073, section 3; with the request's principles
        "adaptive": Search(drafts=4, beam=2, rounds=5, carry="adaptive"),  # Inoue et al. 2025, arXiv 2503.04412
    }
)
"""Settings of the one loop, by name."""


@dataclass(frozen=True, slots=True)
class Stop:
    """When the result is good enough, or not worth more. ``target``, ``min_gain``: scores in [0, 1]."""

    target: float | None = None
    patience: int = 2
    min_gain: float = 0.0


@dataclass(frozen=True, slots=True)
class Budget:
    """The most to spend. ``tokens``: prompt and completion tokens together. ``deadline``: the event loop's time."""

    deadline: float
    tokens: int | None = None
    calls: int | None = None


@dataclass(frozen=True, kw_only=True)
class Program:
    """What every program has. Generate, Review, Refine and ToolChat are the four kinds.

    ``models``: who plays which role. ``threads``: where evaluators work; None for the event loop's own. ``arrival``:
    the program's number in order of arrival. ``lane``: which programs it lets pass. ``metadata``: the caller's own
    notes, which the log repeats. ``to_store``: the request as it was stated, if its trace is to be stored.
    """

    id: str
    task: str
    models: Models
    budget: Budget
    threads: Executor | None = None
    arrival: int = 0
    lane: Lane = "interactive"
    metadata: Mapping[str, str] = field(default_factory=dict)
    to_store: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluatedProgram(Program):
    """A program whose texts are evaluated. ``request`` ends with the user turn to be answered.

    ``fence``: a delimiter line that only this program knows. ``judge_trust``: of the model that judges.
    ``both_directions``: the judge is asked each question a second time, with its answers in the other order.
    ``criteria``: the rubric, which the critic's issues refer to, whether or not a judge scores it. ``calibration``: how
    the opinions of critic and judge are read.
    """

    request: Conversation
    prompts: Prompts
    fence: str
    evaluators: Sequence[Evaluator] = ()
    judge_trust: JudgeTrust = UNKNOWN
    both_directions: bool = False
    criteria: Sequence[Criterion] = ()
    calibration: Calibration = field(default_factory=Calibration)

    def show(self, text: str, fence: str) -> Conversation:
        """What judges and critics read: the request and a text that answers it, and nothing else."""
        return self.request.with_user(self.prompts.render("show", candidate=text, fence=fence))

    def show_after(self, own: Completion, text: str, fence: str) -> Conversation:
        """The same, with the model's own answer before the text, which is somebody else's."""
        shown = self.prompts.render("show_another", candidate=text, fence=fence)
        return self.request.with_reply(own).with_user(shown)

    def ask_again(self, own: Completion) -> Conversation:
        """The request, the model's own answer, and the request for that answer in other words."""
        return self.request.with_reply(own).with_user(self.prompts.render("say_again"))

    @cached_property
    def critics_fence(self) -> str:
        """The critic's delimiter. Its words reach the writer, so it must not know the judge's, and this one tells
        nothing of that."""
        return f"[{hashlib.blake2b(self.fence.encode(), digest_size=6).hexdigest()}]"


@dataclass(frozen=True, kw_only=True)
class Refine(EvaluatedProgram):
    """One refine request as a whole.

    ``draft``: the caller's own first text, instead of the model's. ``principles``: one is drawn for each round.
    ``deltas``: whether texts are shown piece by piece while they are written.
    """

    search: Search = field(default_factory=Search)
    stop: Stop = field(default_factory=Stop)
    sampling: Sampling = field(default_factory=Sampling)
    draft: str | None = None
    principles: Sequence[str] = ()
    deltas: bool = False


@dataclass(frozen=True, kw_only=True)
class Review(EvaluatedProgram):
    """One critique request: evaluate ``candidate``, and say in words what should change if ``feedback``.

    ``principles``: the candidate is also held against these, all of them. ``critic_trust``: of the critic's model as a
    judge.
    """

    candidate: str
    feedback: bool = True
    critic_trust: JudgeTrust = UNKNOWN
    principles: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Generate(Program):
    """One generate request: ``n`` answers to each conversation, sent piece by piece if ``stream``.

    ``form``: what a finished text must pass; with a ``schema`` it is that of the schema.
    """

    requests: Sequence[Conversation]
    n: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    schema: JsonSchema | None = None
    form: TextForm | None = None
    stream: bool = False


@dataclass(frozen=True)
class ForcedTool:
    """A function that may be called. ``schema``: that of its arguments."""

    name: str
    description: str
    schema: JsonSchema

    @property
    def parameters(self) -> str:
        return json.dumps(self.schema, ensure_ascii=False)


@dataclass(frozen=True, kw_only=True)
class ForcedCall:
    """An answer to ``request`` that has to be a call of one of ``tools``. ``id``: the call's.

    ``forms``: makes what the arguments of each must pass. It takes long, and raises InvalidRequest where a text cannot
    be held to a schema.
    """

    id: str
    request: Conversation
    prompts: Prompts
    tools: Sequence[ForcedTool]
    forms: Callable[[], Sequence[TextForm]]
    sampling: Sampling
    finish_reason: RelayFinish


@dataclass(frozen=True, kw_only=True)
class ToolChat(Program):
    """One chat completion with tools, which the writer's server makes of ``asked``; sent in pieces if ``stream``.

    ``forced``: the same for an engine without tools, where the model has to call one.
    """

    asked: ChatBody
    form: TextForm | None = None
    forced: ForcedCall | None = None
    stream: bool = False
