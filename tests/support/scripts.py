"""What the tests of the loop share: a program, an engine that speaks given lines, and a clock that jumps."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, overload

from service.engines.base import PLAINLY, Choice, Choose, Completion, Likelihood, Piece, Reading, Sample, Usage, Weigh
from service.engines.conversation import Conversation, Turn
from service.engines.scripted import EngineCall, Script, ScriptedEngine
from service.evaluators.base import Authority, Evaluation, Evaluator, Submission
from service.evaluators.model.judge import Criterion, Judge
from service.evaluators.text.keywords import Keywords
from service.refinement.calibration import Calibration, Evidence, Scale
from service.refinement.candidate import Critique, Remark
from service.refinement.critic import OWN_SAMPLING, QUESTIONS_SCHEMA
from service.refinement.events import Event, Refined
from service.refinement.loop import refine
from service.refinement.program import Budget, Refine, Search, Stop
from service.refinement.prompts import Prompts
from service.refinement.roles import CallRole, Models, Roles

FENCE = "[fence]"
CRITICS_FENCE = "[fc2b147e3af9]"
SAY_AGAIN = "Again."
REQUEST = Conversation(Turn("user", "Write about the sea."))
PROMPTS = Prompts.compile(
    {
        "draft": "{{ prompt }}",
        "show": "Reply:\n{{ fence }}\n{{ candidate }}\n{{ fence }}",
        "say_again": SAY_AGAIN,
        "show_another": "Another reply:\n{{ fence }}\n{{ candidate }}\n{{ fence }}",
        "rate": "Rate: {{ question }}",
        "rate_reversed": "Swap: {{ question }}",
        "rate_prefill": "Answer: ",
        "doubt": "Doubt? Principles: {{ principles | join(' ') }}"
        "{% for question, answer in verifications.items() %} {{ question }} {{ answer }}{% endfor %}",
        "doubt_prefill": "",
        "critique": "Criticise. Known: {{ issues | join(' ') }} Principles: {{ principles | join(' ') }}"
        "{% for number, name in criteria.items() %} {{ number }} {{ name }}{% endfor %}"
        "{% for question, answer in verifications.items() %} {{ question }} {{ answer }}{% endfor %}",
        "departure": "{{ passage }}: {{ expected }}?",
        "questions": "Ask.",
        "answer": "Answer: {{ question }}",
        "edit": "Edit: {{ instructions | join(' ') }} | {{ remarks | join(' ') }} | {{ memory | join(' ') }}",
        "redraft": "{{ (instructions + remarks + memory) | join(' ') }}",
        "shorten": "Shorten, in {{ language }}.",
        "vote": "{% for letter, text in candidates.items() %}{{ letter }}={{ text }};{% endfor %} {{ fence }}",
        "vote_prefill": "Reply ",
        "compare": "Compare "
        "{% for letter, text in candidates.items() %}{{ letter }}={{ text }};{% endfor %} {{ fence }}",
        "compare_prefill": "Reply ",
        "choose_tool": "Choose: {% for tool in tools %}{{ tool.name }} {{ tool.description }} {% endfor %}",
        "call_tool": "Call {{ tool.name }}: {{ tool.parameters }}",
    }
)
JUDGE = Judge(criteria=(Criterion(name="fluency", question="Is it fluent?"),))
READ_BY_ANSWER = Calibration(
    departure=Scale(0.0, 0.0),
    compared_departure=Scale(0.0, 0.0),
    approval=Scale(-1.0, 0.0),
    compared=Scale(-1.0, 0.0),
    judged=Scale(0.0, 0.0),
    certainty=0.0,
)
"""Only the critic's answer says anything."""
DOUBTED = READ_BY_ANSWER.fault_probability(Evidence(approval=-20.0))
"""The probability of a fault in a text that the critic finds wrong."""
SALT = Keywords(include=("salt",))
FOAM = Keywords(include=("foam",), hard=False)

E = TypeVar("E")


def rated(score: float, mass: float = 1.0) -> Sequence[float]:
    """The probabilities of Yes and No of a judge that gives the score."""
    return mass * score, mass * (1.0 - score)


def role_of(call: EngineCall) -> CallRole:
    """What the call was made for. The request of these tests is one turn, which only a draft leaves as it is.

    A text is weighed for the role that reads it first. Here that is the critic; BilledEngine knows of judges before it.
    """
    if is_doubt(call) or is_own_answer(call) or isinstance(call, Weigh):
        return "critique"
    if isinstance(call, Choose):
        return "judge"
    if (isinstance(call, Sample) and call.schema is not None) or is_answer(call):
        return "critique"
    return "revise" if call.conversation.before else "draft"


def is_doubt(call: EngineCall) -> bool:
    """Whether a critic is asked how right a text is."""
    last = call.conversation.turn.text
    return isinstance(call, Choose) and (last.startswith("Doubt?") or "Is this reply correct?" in last)


def is_own_answer(call: EngineCall) -> bool:
    """Whether a critic answers the request itself."""
    return isinstance(call, Sample) and call.sampling == OWN_SAMPLING


def is_answer(call: EngineCall) -> bool:
    """Whether a factored critic's own question is asked."""
    return call.conversation.turn.text.startswith("Answer: ")


def compared(call: EngineCall) -> tuple[str, str] | None:
    """The two texts that the model is to choose between, as they were placed."""
    found = re.fullmatch(rf"Compare A=(.*);B=(.*); {re.escape(FENCE)}", call.conversation.turn.text, re.DOTALL)
    return (found[1], found[2]) if found else None


def shown_in(call: EngineCall) -> str:
    """The candidate that a judge was shown."""
    found = re.search(rf"^{re.escape(FENCE)}\n(.*?)\n{re.escape(FENCE)}$", call.prompt, re.DOTALL | re.MULTILINE)
    assert found, call.prompt
    return found[1]


@dataclass
class Lines:
    """What the engine says to each role, call by call; the last line is repeated. Judges look a text's weights up.

    A critic doubts a text unless its next line is empty.
    ``questions`` are those of a factored critic, each with the same ``answer``. ``own`` is the critic's answer to the
    request, with which it compares a caller's text. ``compare`` weighs two texts as they were placed.
    """

    draft: Sequence[str] = ("Waves.",)
    revise: Sequence[str] = ("More waves.",)
    critique: Sequence[Sequence[str] | str] = (("Too short.",),)
    questions: Sequence[str] = ()
    answer: str = "It is."
    own: str = "Stones."
    ratings: Mapping[str, Sequence[float]] = field(default_factory=dict)
    vote: Sequence[float] = ()
    compare: Callable[[str, str], Sequence[float]] = lambda first, second: (0.5, 0.5)
    said: Counter[str] = field(default_factory=Counter)

    def reply(self, call: Sample) -> str:
        if call.schema is QUESTIONS_SCHEMA:
            return json.dumps({"questions": self.questions})
        if is_answer(call):
            return self.answer
        if is_own_answer(call):
            return self.own
        role = role_of(call)
        lines: Sequence[Any] = {"draft": self.draft, "revise": self.revise, "critique": self.critique}[role]
        line = lines[min(self.said[role], len(lines) - 1)]
        self.said[role] += 1
        return line if isinstance(line, str) else json.dumps({"issues": line})

    def weights(self, call: Choose) -> Sequence[float]:
        if pair := compared(call):
            return self.compare(*pair)
        if call.options[0] == "A":
            return self.vote
        if is_doubt(call):
            return self._doubt(call)
        return self.ratings.get(shown_in(call), rated(0.5))

    def _doubt(self, call: Choose) -> Sequence[float]:
        line = self.critique[min(self.said["critique"], len(self.critique) - 1)]
        if line or line == "":
            return 0.0, 1.0
        self.said["critique"] += 1
        return 1.0, 0.0


@dataclass
class BilledEngine(ScriptedEngine):
    """A scripted engine that notes by itself what each role's finished calls cost."""

    bill: dict[CallRole, Usage] = field(default_factory=dict)

    async def stream(
        self, sample: Sample, *, priority: int = 0, reading: Reading = PLAINLY
    ) -> AsyncGenerator[Piece, None]:
        def cut(completion: Completion) -> None:
            self._enter(sample, completion.usage)
            reading.on_cut(completion)

        billed = replace(reading, on_cut=cut)
        async with aclosing(super().stream(sample, priority=priority, reading=billed)) as items:
            async for item in items:
                if isinstance(item, Completion):
                    self._enter(sample, item.usage)
                yield item

    async def choose(self, choose: Choose, priority: int) -> Choice:
        choice = await super().choose(choose, priority)
        self._enter(choose, choice.usage)
        return choice

    async def weigh(self, weigh: Weigh, priority: int) -> Likelihood:
        likelihood = await super().weigh(weigh, priority)
        self._enter(weigh, likelihood.usage)
        return likelihood

    def _enter(self, call: EngineCall, usage: Usage) -> None:
        role = self._role_of(call)
        self.bill[role] = self.bill.get(role, Usage()) + usage

    def _role_of(self, call: EngineCall) -> CallRole:
        if not isinstance(call, Weigh) or call.conversation.turn.text == SAY_AGAIN:
            return role_of(call)
        is_judged = any(f"\n{call.reply}\n" in choose.prompt for choose in self.asked("judge"))
        return "judge" if is_judged else role_of(call)

    @overload
    def asked(self, role: Literal["judge"]) -> list[Choose]: ...

    @overload
    def asked(self, role: Literal["draft", "critique", "revise"]) -> list[Sample]: ...

    def asked(self, role: CallRole) -> list[Choose] | list[Sample]:
        if role == "judge":
            return [choose for choose in self.calls_of(Choose) if role_of(choose) == role]
        return [sample for sample in self.calls_of(Sample) if role_of(sample) == role]

    def counts(self) -> dict[CallRole, int]:
        """How many calls each role made."""
        return dict(Counter(self._role_of(call) for call in self.calls))


def engine(lines: Lines | None = None, **script: Any) -> BilledEngine:
    lines = lines or Lines()
    return BilledEngine(Script(**{"reply": lines.reply, "weights": lines.weights, **script}))


def stall(engine: ScriptedEngine, at: Callable[[EngineCall], bool], then: Callable[[], None] = lambda: None) -> None:
    """Let the engine stand still from the first call that ``at`` picks, and do ``then`` at that moment."""

    def fault(call: EngineCall) -> None:
        if at(call):
            engine.script = replace(engine.script, seconds_per_call=3600.0, fault=lambda _: None)
            then()

    engine.script = replace(engine.script, fault=fault)


def halt(engine: ScriptedEngine, index: int, then: Callable[[], None], streams: int = 1) -> None:
    """Let replies stand still before their token at ``index``, and do ``then`` once ``streams`` of them do."""
    halted = 0

    def pause(at: int) -> float:
        nonlocal halted
        if at != index:
            return 0.0
        halted += 1
        if halted == streams:
            asyncio.get_running_loop().call_soon(then)
        return 3600.0

    engine.script = replace(engine.script, pause=pause)


@dataclass(frozen=True)
class Broken:
    """An evaluator that cannot do its work."""

    type: str = "broken"
    authority: Authority = "verifier"
    hard: bool = True
    weight: float = 1.0

    async def evaluate(self, submission: Submission) -> Evaluation:
        raise OSError("no route to the evaluator")


@dataclass(frozen=True)
class Stuck(Broken):
    """An evaluator that never ends."""

    type: str = "stuck"

    async def evaluate(self, submission: Submission) -> Evaluation:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets the event")


@dataclass(frozen=True)
class Counted:
    """An evaluator that notes what it was given, and leaves the work to another."""

    inner: Evaluator
    seen: list[str] = field(default_factory=list)

    @property
    def type(self) -> str:
        return self.inner.type

    @property
    def authority(self) -> Authority:
        return self.inner.authority

    @property
    def hard(self) -> bool:
        return self.inner.hard

    @property
    def weight(self) -> float:
        return self.inner.weight

    async def evaluate(self, submission: Submission) -> Evaluation:
        self.seen.append(submission.text)
        return await self.inner.evaluate(submission)


def program(*evaluators: Evaluator, search: Search | None = None, **fields: Any) -> Refine:
    """A program; ``tokens``, ``calls`` and ``seconds`` are its budget."""
    budget = Budget(
        deadline=asyncio.get_running_loop().time() + fields.pop("seconds", 100.0),
        tokens=fields.pop("tokens", None),
        calls=fields.pop("calls", None),
    )
    return Refine(
        **{
            "id": "ref-1",
            "task": "general",
            "models": Models.single("scripted"),
            "request": REQUEST,
            "prompts": PROMPTS,
            "fence": FENCE,
            "calibration": READ_BY_ANSWER,
            "budget": budget,
            "evaluators": evaluators,
            "search": search or Search(rounds=1),
            "stop": Stop(patience=100),
            **fields,
        }
    )


async def events(program: Refine, engine: ScriptedEngine) -> list[Event]:
    async with aclosing(refine(program, Roles.single(engine))) as found:
        return [event async for event in found]


def doubting(candidate: str, findings: Sequence[str], *remarks: str, **fields: Any) -> Critique:
    """The critique of a text that the critic finds wrong."""
    told = tuple(Remark(message, None, DOUBTED or 0.0) for message in remarks)
    return Critique(candidate, tuple(findings), told, fault_probability=DOUBTED, **fields)


async def refined(program: Refine, engine: ScriptedEngine) -> Refined:
    """The account of a program that was run to its end."""
    *_, last = await events(program, engine)
    assert isinstance(last, Refined)
    return last


def of_type(found: Sequence[Event], kind: type[E]) -> list[E]:
    return [event for event in found if isinstance(event, kind)]


async def settled(engine: ScriptedEngine) -> None:
    """Return once nothing runs in the engine."""
    async with asyncio.timeout(20):
        while engine.in_flight:
            await asyncio.sleep(0)


class Clock:
    """The running event loop's clock, which can jump."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._real = asyncio.get_running_loop().time

    def __call__(self) -> float:
        return self._real() + self._ahead

    def jump(self, seconds: float = 100.1) -> None:
        """By default just beyond the deadline of a program of these tests."""
        self._ahead += seconds
