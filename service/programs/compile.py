"""From a request to a program: tasks and limits applied, everything resolved. Done once, before admission."""

import asyncio
import itertools
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

from service.constraints.algebra import Contradiction
from service.constraints.contradictions import refuse_contradictions
from service.engines.base import Sampling
from service.engines.conversation import Conversation, Turn
from service.errors import FieldError, InvalidRequest, wrong_field, wrong_fields
from service.evaluators.base import Evaluator, RefusedField, gather_constraints
from service.evaluators.model.judge import Criterion, Judge
from service.evaluators.toolbox import Toolbox
from service.programs.ids import make_id
from service.programs.models import ServedModels
from service.refinement.calibration import Calibration, Scale
from service.refinement.landing import NEVER_PROSE
from service.refinement.program import (
    Budget,
    ForcedCall,
    ForcedTool,
    Generate,
    Program,
    Refine,
    Review,
    Search,
    Select,
    ToolChat,
)
from service.refinement.scheduling import Lane
from service.refinement.trust import UNKNOWN, JudgeTrust
from service.tasks.task import Rubric, Task
from service.wire.requests import (
    BudgetFields,
    CommonFields,
    CritiqueRequest,
    EvaluatedFields,
    GenerateRequest,
    Message,
    NativeRequest,
    RefineRequest,
    stated_fields,
)
from service.wire.tools import ToolRequest

_ANSWERS_TO = {None: "user or assistant", "user": "assistant", "assistant": "user"}
_TAKES_ITS_PLACE = {"vote": "the vote takes its place", "pairwise": "the comparison takes its place"}


@dataclass(frozen=True)
class RequestLimits:
    """The most that one request may ask for. ``seconds`` counts from when its body was read."""

    candidates: int
    rounds: int
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Programs:
    """Compiles requests into programs. Raises InvalidRequest, which names every field that is wrong at that stage.

    tasks, rubrics, served: what a request may name.
    limits: how much it may ask for.
    tools: what its evaluators may need.
    judge_trust: what is known of a model as a judge. judge_scale: what its scores say of a fault; None if that is not
        known.
    both_directions: whether judges are asked with their answers in both orders.
    calibration: how the opinions of critics and judges are read.
    stores_traces: whether requests may ask for their traces to be stored.
    """

    tasks: Mapping[str, Task]
    limits: RequestLimits
    served: ServedModels
    rubrics: Mapping[str, Rubric] = field(default_factory=dict)
    tools: Toolbox = field(default_factory=Toolbox)
    judge_trust: Callable[[str], JudgeTrust] = lambda model: UNKNOWN
    both_directions: bool = False
    judge_scale: Callable[[str], Scale | None] = lambda model: None
    calibration: Calibration = field(default_factory=Calibration)
    stores_traces: bool = False
    _arrivals: Iterator[int] = field(default_factory=itertools.count, init=False, repr=False, compare=False)
    """Numbers the programs in order of arrival."""

    def compile(self, request: NativeRequest, lane: Lane = "interactive") -> Program:
        """The program of a request, whichever it is."""
        if request.store and not self.stores_traces:
            raise wrong_field("store", "this service stores no traces: its operator has not set REDRAFT_STORED_TRACES")
        program = self._compile(request, lane)
        return replace(program, to_store=stated_fields(request)) if request.store else program

    def _compile(self, request: NativeRequest, lane: Lane) -> Program:
        match request:
            case GenerateRequest():
                return self.compile_generate(request, lane)
            case CritiqueRequest():
                return self.compile_review(request, lane)
            case RefineRequest():
                return self.compile_refine(request, lane)

    def compile_generate(
        self, request: GenerateRequest, lane: Lane = "interactive", *, open_ended: bool = False
    ) -> Generate:
        """``open_ended``: where the request states no limit, a text may fill the context, as in a chat, whatever its
        task says."""
        models, task = self.served.of(request), self._task(request)
        prompts = request.prompt if isinstance(request.prompt, tuple) else (request.prompt,)
        if request.n > self.limits.candidates:
            raise wrong_field("n", f"at most {self.limits.candidates} are allowed")
        sampling = self._sampling(request, task, open_ended=open_ended)
        is_prose = request.response_schema is None and not sampling.choices
        sampling = replace(sampling, landing=is_prose and sampling.landing is True)
        if request.response_schema is not None and sampling.choices:
            raise wrong_field("response_schema", "a text cannot be one of sampling.choices and JSON that fits a schema")
        return Generate(
            id=make_id("gen"),
            arrival=next(self._arrivals),
            lane=lane,
            task=task.name,
            models=models,
            requests=[self._conversation(request, prompt, task, sampling) for prompt in prompts],
            budget=self._budget(BudgetFields()),
            n=request.n,
            sampling=sampling,
            schema=request.response_schema,
            form=request.form,
            threads=self.tools.threads,
            stream=request.stream,
        )

    def compile_tool_chat(self, request: ToolRequest, lane: Lane = "interactive") -> ToolChat:
        """The general task says how it is sampled. Its prompts only force a call on an engine without tools."""
        task = self.tasks["general"]
        sampling = self._sampling(request, task, open_ended=True)
        return ToolChat(
            id=make_id("gen"),
            arrival=next(self._arrivals),
            lane=lane,
            task=task.name,
            models=self.served.single(request.model),
            asked=request.body(sampling),
            form=request.form,
            threads=self.tools.threads,
            budget=self._budget(BudgetFields()),
            forced=_forced(request, task, sampling),
            stream=request.stream,
        )

    def compile_review(self, request: CritiqueRequest, lane: Lane = "interactive") -> Review:
        models, task = self.served.of(request), self._task(request)
        sampling = self._sampling(request, task)  # bounded like everyone's, though scores and critiques are greedy
        rubrics = self._rubrics(request, task)
        return Review(
            id=make_id("crit"),
            arrival=next(self._arrivals),
            lane=lane,
            task=task.name,
            models=models,
            request=self._conversation(request, request.prompt, task, sampling),
            prompts=task.prompts,
            fence=_new_fence(),
            budget=self._budget(BudgetFields()),
            evaluators=self._evaluators(request, task, rubrics, judge=request.judge),
            judge_trust=self.judge_trust(models.judge),
            both_directions=self.both_directions,
            criteria=_criteria(request, task, rubrics),
            calibration=self._calibration(models.judge),
            threads=self.tools.threads,
            principles=_principles(rubrics),
            critic_trust=self.judge_trust(models.critic),
            candidate=request.candidate,
            feedback=request.feedback,
        )

    def compile_refine(self, request: RefineRequest, lane: Lane = "interactive") -> Refine:
        models, task = self.served.of(request), self._task(request)
        search = self._search(request, task)
        rubrics = self._rubrics(request, task)
        if search.constraints != "off":
            _refuse_contradictions(request)
        if search.select == "score":
            evaluators = self._evaluators(request, task, rubrics, judge=request.judge is not False)
        else:
            evaluators = self._verifiers(request, task, search.select)
        if not evaluators and search.rounds > 0 and search.select == "score":
            raise wrong_field(
                "judge", "without the judge and without evaluators no revision could be known to be better"
            )
        preset = request.search.preset or task.preset
        principles = request.principles or (task.principles if preset == "constitutional" else ())
        sampling = self._sampling(request, task)
        is_prose = not sampling.choices and not any(evaluator.type in NEVER_PROSE for evaluator in evaluators)
        sampling = replace(sampling, landing=is_prose and sampling.landing is not False)
        if _may_try(request, search, evaluators):
            models = self.served.with_candidate(models, request)
        return Refine(
            id=make_id("ref"),
            arrival=next(self._arrivals),
            lane=lane,
            task=task.name,
            models=models,
            request=self._conversation(request, request.prompt, task, sampling),
            prompts=task.prompts,
            fence=_new_fence(),
            budget=self._budget(request.budget),
            evaluators=evaluators,
            judge_trust=self.judge_trust(models.judge),
            both_directions=self.both_directions,
            criteria=_criteria(request, task, rubrics),
            calibration=self._calibration(models.judge),
            threads=self.tools.threads,
            search=search,
            stop=request.stop.apply_to(task.stop),
            sampling=sampling,
            draft=request.draft,
            principles=(*principles, *_principles(rubrics)),
            deltas=request.deltas,
        )

    def _calibration(self, judge: str) -> Calibration:
        """How opinions are read if this model judges."""
        scale = self.judge_scale(judge)
        return self.calibration if scale is None else replace(self.calibration, judged=scale)

    def _task(self, request: CommonFields) -> Task:
        task = self.tasks.get(request.task)
        if task is None:
            raise wrong_field("task", f"there is no such task; there are {', '.join(self.tasks)}")
        return task

    def _rubrics(self, request: EvaluatedFields, task: Task) -> Sequence[Rubric]:
        """The task's rubrics and the request's, each once."""
        wrong = [
            FieldError(f"rubrics.{index}", f"there is no such rubric; there are {', '.join(self.rubrics)}")
            for index, name in enumerate(request.rubrics)
            if name not in self.rubrics
        ]
        if wrong:
            raise InvalidRequest("the request names rubrics that this service does not have", wrong)
        asked = [*task.rubrics, *(self.rubrics[name] for name in request.rubrics)]
        return list({rubric.name: rubric for rubric in asked}.values())

    def _evaluators(
        self, request: EvaluatedFields, task: Task, rubrics: Sequence[Rubric], *, judge: bool
    ) -> Sequence[Evaluator]:
        if request.criteria and not judge:
            raise wrong_field("criteria", "they are the judge's, and judge is false")
        judges = [Judge(criteria=_criteria(request, task, rubrics))] if judge else []
        return [*task.evaluators, *self._stated(request), *judges]

    def _verifiers(self, request: RefineRequest, task: Task, select: Select) -> Sequence[Evaluator]:
        """The evaluators where the model picks the result. It takes the judge's place: the two could disagree."""
        stated = self._stated(request)
        asked = {
            "judge": request.judge is True,
            "criteria": bool(request.criteria),
            "rubrics": bool(request.rubrics),
            **{f"evaluators.{index}": evaluator.authority == "judge" for index, evaluator in enumerate(stated)},
        }
        reason = f"with select: {select} there is no judge; {_TAKES_ITS_PLACE[select]}"
        if wrong := [FieldError(name, reason) for name, is_asked in asked.items() if is_asked]:
            raise InvalidRequest(reason, wrong)
        return [evaluator for evaluator in (*task.evaluators, *stated) if evaluator.authority == "verifier"]

    def _stated(self, request: EvaluatedFields) -> Sequence[Evaluator]:
        """The request's own evaluators, ready to run."""
        ready, wrong = [], []
        for index, evaluator in enumerate(request.evaluators):
            try:
                ready.append(evaluator.resolve(self.tools))
            except RefusedField as error:
                wrong.append(FieldError(f"evaluators.{index}.{error.field}", str(error)))
        if wrong:
            raise InvalidRequest("the request states evaluators that this service cannot run", wrong)
        return ready

    def _conversation(self, request: CommonFields, prompt: str | None, task: Task, sampling: Sampling) -> Conversation:
        """The request as a conversation that ends with the task's draft prompt."""
        if (prompt is None) == (request.messages is None):
            raise wrong_field("prompt", "give exactly one of prompt and messages")
        turns = _turns(request.messages) if request.messages is not None else [Turn("user", prompt or "")]
        *earlier, last = turns
        parameters = SimpleNamespace(**_parameters(request, task))
        asked = task.prompts.render("draft", prompt=last.text, parameters=parameters, choices=sampling.choices)
        return _conversation_of([*earlier, Turn("user", asked, images=last.images)])

    def _sampling(self, request: CommonFields | ToolRequest, task: Task, *, open_ended: bool = False) -> Sampling:
        wanted = request.sampling.max_tokens
        if wanted is not None and wanted > self.limits.tokens:
            raise wrong_field("sampling.max_tokens", f"at most {self.limits.tokens} are allowed")
        sampling = request.sampling.apply_to(task.sampling)
        if open_ended and wanted is None:
            return replace(sampling, max_tokens=self.limits.tokens, open_ended=True)
        return replace(sampling, max_tokens=min(sampling.max_tokens, self.limits.tokens))

    def _budget(self, budget: BudgetFields) -> Budget:
        seconds = self.limits.seconds if budget.seconds is None else budget.seconds
        if seconds > self.limits.seconds:
            raise wrong_field("budget.seconds", f"at most {self.limits.seconds:g} are allowed")
        deadline = asyncio.get_running_loop().time() + seconds
        return Budget(deadline=deadline, tokens=budget.tokens, calls=budget.calls)

    def _search(self, request: RefineRequest, task: Task) -> Search:
        """The search asked for. A request beyond the limits is refused; what it leaves to the defaults is cut."""
        most = self.limits.candidates
        limits = {"drafts": most, "beam": most, "branches": most, "rounds": self.limits.rounds}
        stated, search = request.search.given_fields(), request.search.apply_to(task.search)
        wrong = [
            FieldError(f"search.{name}", f"at most {limit} are allowed")
            for name, limit in limits.items()
            if stated.get(name, 0) > limit
        ]
        if not wrong and "branches" in stated and search.beam * search.branches > most:
            wrong = [FieldError("search.branches", f"beam times branches may be at most {most}")]
        if wrong:
            raise InvalidRequest("the request asks for more than this service allows", wrong)
        search = replace(search, **{name: min(getattr(search, name), limit) for name, limit in limits.items()})
        return replace(search, branches=min(search.branches, most // search.beam))


def _may_try(request: RefineRequest, search: Search, evaluators: Sequence[Evaluator]) -> bool:
    """Whether a candidate for the writer's place may write some of the first drafts: if there are several, hard
    verifiers compare them, and no budget keeps one of them from being written."""
    limits = request.budget.tokens, request.budget.calls
    compared = any(each.hard and each.authority == "verifier" for each in evaluators)
    return search.drafts > 1 and request.draft is None and compared and limits == (None, None)


def _forced(request: ToolRequest, task: Task, sampling: Sampling) -> ForcedCall | None:
    """The call that the model has to make; None where it may also answer, or where only a server can take the
    messages."""
    tools = [
        ForcedTool(function.name, function.description or "", function.arguments)
        for function in request.forced.values()
    ]
    if not tools or not request.turns:
        return None
    try:
        conversation = _conversation_of(_turns(request.turns))
    except InvalidRequest:
        return None
    return ForcedCall(
        id=make_id("call"),
        request=conversation,
        prompts=task.prompts,
        tools=tools,
        forms=request.forced_forms,
        sampling=sampling,
        finish_reason="tool_calls" if request.tool_choice == "required" else "stop",  # as vLLM says it
    )


def _conversation_of(turns: Sequence[Turn]) -> Conversation:
    first, *others = turns
    conversation = Conversation(first)
    for turn in others:
        conversation = Conversation(turn, conversation)
    return conversation


def _new_fence() -> str:
    return f"[{secrets.token_hex(6)}]"


def _turns(messages: Sequence[Message]) -> list[Turn]:
    """The messages as turns: a system message may come first, then user and assistant alternate, the user last.

    A system message alone is what the model answers to, and so it is the user's turn: every chat template takes that.
    """
    if [message.role for message in messages] == ["system"]:
        messages = [messages[0].model_copy(update={"role": "user"})]
    said: str | None = None
    for index, message in enumerate(messages):
        if message.role == "system" and index == 0:
            continue
        if message.role in ("system", said):
            expected = _ANSWERS_TO[said]
            raise wrong_field(f"messages.{index}.role", f"expected {expected}: roles alternate after a system message")
        said = message.role
    last = len(messages) - 1
    if messages[last].role != "user":
        raise wrong_field(f"messages.{last}.role", "the last message must be the user's")
    if not messages[last].text.strip():
        raise wrong_field(f"messages.{last}.content", "the last message must have a text")
    return [Turn(message.role, message.text, images=message.images) for message in messages]


def _parameters(request: CommonFields, task: Task) -> dict[str, str]:
    """The task's parameters, given or by default."""
    wrong = [
        FieldError(f"parameters.{name}", f"the task {task.name} has no such parameter")
        for name in request.parameters
        if name not in task.parameters
    ]
    values = dict(request.parameters)
    for name, parameter in task.parameters.items():
        if name in values:
            continue
        if parameter.default is None:
            wrong.append(FieldError(f"parameters.{name}", f"the task {task.name} needs it: {parameter.description}"))
        else:
            values[name] = parameter.default
    if wrong:
        raise InvalidRequest(f"the parameters do not fit the task {task.name}", wrong)
    return values


def _refuse_contradictions(request: RefineRequest) -> None:
    """Refuse rules that no text can follow together. Raises InvalidRequest, which names both."""
    try:
        refuse_contradictions(gather_constraints(request.evaluators))
    except Contradiction as error:
        fields = dict.fromkeys(f"evaluators.{each.evaluator}" for each in (error.first, error.second))
        reason = f"no text can follow both: {error.reason}"
        raise wrong_fields([FieldError(field, reason) for field in fields]) from None


def _criteria(request: EvaluatedFields, task: Task, rubrics: Sequence[Rubric]) -> tuple[Criterion, ...]:
    return (*(request.criteria or task.criteria), *(line for rubric in rubrics for line in rubric.criteria))


def _principles(rubrics: Sequence[Rubric]) -> Sequence[str]:
    return [principle for rubric in rubrics for principle in rubric.principles]
