"""The performance benchmark's arithmetic and its client loops, without an engine."""

import itertools
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from bench.performance import report
from bench.performance.account import BLOCK_TOKENS, Account, Call, account
from bench.performance.arms import ARMS, FEEDBACK, ROLES
from bench.performance.lengths import FIXED, NATURAL, NEVER
from bench.performance.programs import CONTRADICTION, ChatLoop, Job, ProgramCut, Refine, manner_of_redraft
from bench.performance.prompts import Prompts
from bench.performance.recording import Recorder
from bench.performance.results import Cell, Counted, Key, Origin, OtherOrigin, Rates, Results, Wave
from bench.performance.waves import Bench, Plan, PromptsDiffer, Served, floor
from bench.servers import Server
from service.wire.requests import RefineRequest

CELL = Cell(512, 2)
ORIGIN = Origin("a-model", "abc1234", "a machine", "vllm 1", 3, {"method": "ngram"})


def tokens(count: int, start: int = 0) -> list[int]:
    """So many tokens, none of which begins another such run."""
    return list(range(start, start + count))


class TestAccount:
    def test_a_first_prompt_was_never_seen(self) -> None:
        assert account([Call(tokens(40), [900], cached=0)]) == Account(1, 40, 0, never_seen=40, rounding=0)

    def test_what_an_earlier_prompt_began_with_is_seen_but_an_incomplete_block_is_lost_to_rounding(self) -> None:
        shared = tokens(BLOCK_TOKENS + 5)
        calls = [Call([*shared, 901], [], cached=0), Call([*shared, 902], [], cached=BLOCK_TOKENS)]
        found = account(calls)
        assert found.never_seen == len(shared) + 2
        assert found.rounding == 5
        assert found.excess == 0

    def test_a_reply_is_seen_but_for_its_last_token_which_was_only_sampled(self) -> None:
        prompt, reply = tokens(30), tokens(10, 500)
        found = account([Call(prompt, reply, cached=0), Call([*prompt, *reply, 7], [], cached=BLOCK_TOKENS)])
        assert found.never_seen == 30 + 2  # the reply's last token, and the 7
        assert found.rounding == 39 - BLOCK_TOKENS
        assert found.excess == 0

    def test_the_last_token_of_a_prompt_is_computed_even_if_all_of_it_is_cached(self) -> None:
        prompt = tokens(2 * BLOCK_TOKENS)
        found = account([Call(prompt, [], cached=0), Call(prompt, [], cached=BLOCK_TOKENS)])
        assert (found.never_seen, found.rounding, found.excess) == (64, BLOCK_TOKENS, 0)

    def test_a_whole_block_that_the_cache_did_not_give_is_excess(self) -> None:
        prompt = tokens(2 * BLOCK_TOKENS + 1)
        found = account([Call(prompt, [], cached=0), Call(prompt, [], cached=BLOCK_TOKENS)])
        assert found.excess == BLOCK_TOKENS

    def test_replies_of_the_same_prompt_are_told_apart(self) -> None:
        prompt = tokens(40)
        siblings = [Call(prompt, [500, 501, 1], cached=0), Call(prompt, [600, 601, 1], cached=32)]
        found = account([*siblings, Call([*prompt, 600, 601, 9], [], cached=32)])
        assert found.never_seen == 40 + 0 + 1
        assert found.prompt_tokens == 40 + 40 + 43

    def test_of_nothing(self) -> None:
        assert account([]) == Account(0, 0, 0, 0, 0)


@dataclass
class ChatServer:
    """Answers every chat completion with a numbered text, and keeps what it was asked."""

    asked: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v1/chat/completions"
        self.asked.append(json.loads(request.content))
        text = f"text {len(self.asked)}"
        return httpx.Response(
            200, json={"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": len(self.asked)}}
        )


def client(answer: Callable[[httpx.Request], httpx.Response]) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://server")


class TestChatLoop:
    async def test_one_chat_only_ever_grows(self) -> None:
        server = ChatServer()
        async with client(server) as chat:
            exchanges = await ChatLoop()(chat, Job("Rewrite this.", FIXED, seed=7, banned=(1, 2)))
        messages = [asked["messages"] for asked in server.asked]
        assert [len(each) for each in messages] == [1, 3, 5, 7, 9]
        assert all(longer[: len(shorter)] == shorter for shorter, longer in itertools.pairwise(messages))
        assert [m["role"] for m in messages[-1]] == ["user", "assistant"] * 4 + ["user"]
        assert messages[-1][1]["content"] == "text 1"
        asks = manner_of_redraft()
        assert [messages[-1][place]["content"] for place in (2, 4, 6, 8)] == [asks.critique, asks.revise] * 2
        assert "missing: harbour" in asks.critique
        assert asks.revise == 'Use all of these words: "harbour".'
        assert [each.reply for each in exchanges] == [f"text {n}" for n in range(1, 6)]
        assert [each.prompt_tokens for each in exchanges] == [1, 2, 3, 4, 5]

    async def test_a_textbook_loop_gives_each_role_its_system_prompt_and_the_same_history(self) -> None:
        textbook, one_chat = ChatServer(), ChatServer()
        job = Job("Rewrite this.", FIXED, seed=7)
        async with client(textbook) as first, client(one_chat) as second:
            await ChatLoop(ROLES)(first, job)
            await ChatLoop()(second, job)
        systems = [asked["messages"][0]["content"] for asked in textbook.asked]
        roles = ("draft", "critique", "revise", "critique", "revise")
        assert systems == [ROLES[role] for role in roles]
        assert [asked["messages"][1:] for asked in textbook.asked] == [asked["messages"] for asked in one_chat.asked]

    async def test_fixed_lengths_ban_the_ends_of_replies(self) -> None:
        server = ChatServer()
        async with client(server) as chat:
            await ChatLoop()(chat, Job("Rewrite this.", FIXED, seed=7, banned=(1, 2)))
        assert [asked["max_tokens"] for asked in server.asked] == [120, 60, 120, 60, 120]
        assert all(asked["logit_bias"] == {"1": NEVER, "2": NEVER} for asked in server.asked)
        assert not any("response_format" in asked for asked in server.asked)

    async def test_natural_lengths_sample_as_redraft_does(self) -> None:
        server = ChatServer()
        async with client(server) as chat:
            await ChatLoop()(chat, Job("Rewrite this.", NATURAL, seed=7, banned=(1, 2)))
        texts, critiques = server.asked[::2], server.asked[1::2]
        assert [asked["seed"] for asked in texts] == [7, 8, 9]
        assert all(asked["temperature"] == manner_of_redraft().temperature > 0 for asked in texts)
        assert all(asked["temperature"] == 0.0 and asked["max_tokens"] == 160 for asked in critiques)
        assert all("issues" in json.dumps(asked["response_format"]) for asked in critiques)
        assert not any("logit_bias" in asked for asked in server.asked)

    async def test_a_textbook_critic_scores_in_words_where_it_may(self) -> None:
        natural, fixed = ChatServer(), ChatServer()
        async with client(natural) as first, client(fixed) as second:
            await ChatLoop(ROLES, FEEDBACK)(first, Job("Rewrite this.", NATURAL, seed=7))
            await ChatLoop(ROLES, FEEDBACK)(second, Job("Rewrite this.", FIXED, seed=7))
        asked = [[asked["messages"][-1]["content"] for asked in server.asked[1::2]] for server in (natural, fixed)]
        assert asked == [[FEEDBACK] * 2, [manner_of_redraft().critique] * 2]
        assert not any("response_format" in asked for asked in natural.asked)


class TestRefine:
    @pytest.mark.parametrize("arm", [name for name, arm in ARMS.items() if isinstance(arm.program, Refine)])
    async def test_every_arm_is_a_request_that_the_service_takes(self, arm: str) -> None:
        asked: list[RefineRequest] = []

        def answer(request: httpx.Request) -> httpx.Response:
            asked.append(RefineRequest.model_validate_json(request.content))
            return httpx.Response(200, json={"stop_reason": "rounds"})

        async with client(answer) as redraft:
            assert await ARMS[arm].program(redraft, Job("Rewrite this.", FIXED, seed=7)) == ()
        [request] = asked
        assert request.sampling.given_fields() == {"max_tokens": 120, "seed": 7}
        assert not request.trace

    async def test_a_program_that_was_cut_is_no_measurement(self) -> None:
        async with client(lambda request: httpx.Response(200, json={"stop_reason": "deadline"})) as redraft:
            with pytest.raises(ProgramCut, match="deadline"):
                await Refine({})(redraft, Job("Rewrite this.", FIXED, seed=7))

    @pytest.mark.parametrize("text", ["", "A harbour.", "No such word."])
    def test_no_text_ends_a_program_early(self, text: str) -> None:
        assert min(check.score for check in CONTRADICTION.check(text)) < 1


@dataclass
class Characters:
    """A tokenizer whose tokens are characters; a template that puts a letter before each message."""

    all_special_ids: list[int] = field(default_factory=lambda: [1, 2])

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [ord(character) for character in text]

    def decode(self, token_ids: list[int]) -> str:
        return "".join(map(chr, token_ids))

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        assert not tokenize
        assert add_generation_prompt
        return "".join(message["role"][0] + message["content"] for message in conversation) + "a"


class TestPrompts:
    def test_they_are_as_long_as_asked_and_differ_from_their_first_words_on(self) -> None:
        prompts = Prompts(Characters())
        made = [*prompts.fresh(300, 40), *prompts.fresh(300, 40)]
        assert {len(prompt) for prompt in made} == {300}
        assert len({prompt[:12] for prompt in made}) == 80

    def test_the_waves_of_a_repetition_have_the_same_texts_under_new_numbers(self) -> None:
        prompts = Prompts(Characters())
        first, second, third = prompts.fresh(300, 5), prompts.fresh(300, 5), prompts.fresh(300, 5, repetition=1)
        assert [prompt[12:] for prompt in first] == [prompt[12:] for prompt in second]
        assert len({prompt[12:] for prompt in [*first, *third]}) == 10


@dataclass
class Parameters:
    max_tokens: int
    structured_outputs: object = None
    logit_bias: dict[int, float] | None = None


@dataclass
class Reply:
    token_ids: list[int]


@dataclass
class Output:
    prompt_token_ids: list[int]
    outputs: list[Reply]
    num_cached_tokens: int | None = None
    finished: bool = True


async def generate(prompt: Sequence[int], params: Parameters, request_id: str) -> AsyncGenerator[Output, None]:
    yield Output(list(prompt), [Reply([500, 501])], num_cached_tokens=BLOCK_TOKENS)


async def replied(recorder: Recorder, prompt: Sequence[int], params: Parameters) -> None:
    """As the service's engine reads a call that has one output: it closes the stream after it."""
    async with aclosing(recorder.recording(generate)(prompt, params, "id")) as outputs:
        await anext(outputs)


class TestRecorder:
    async def test_it_accounts_for_the_calls_since_it_began(self) -> None:
        recorder = Recorder()
        await replied(recorder, tokens(70), Parameters(120))
        await recorder.begin(fixed=False)
        await replied(recorder, tokens(40), Parameters(120))
        await replied(recorder, [*tokens(40), 500, 8], Parameters(1))
        assert await recorder.account() == Account(2, 82, 2 * BLOCK_TOKENS, never_seen=41, rounding=9)

    async def test_natural_lengths_leave_a_call_as_it_is(self) -> None:
        recorder = Recorder(bias={2: NEVER})
        await replied(recorder, tokens(3), wanted := Parameters(160, structured_outputs="a schema"))
        assert wanted == Parameters(160, structured_outputs="a schema")

    async def test_fixed_lengths_change_texts_and_critiques_but_no_judge_call(self) -> None:
        recorder = Recorder(bias={2: NEVER})
        await recorder.begin(fixed=True)
        text, critique, judge = Parameters(120), Parameters(160, structured_outputs="a schema"), Parameters(1)
        for params in (text, critique, judge):
            await replied(recorder, tokens(3), params)
        assert text == Parameters(120, logit_bias={2: NEVER})
        assert critique == Parameters(60, structured_outputs=None, logit_bias={2: NEVER})
        assert judge == Parameters(1)


def wave(arm: str = "redraft", wall: float = 10.0, *, repetition: int = 0, lengths: str = "fixed") -> Wave:
    """Of two programs. Never seen were 1,000 tokens, decoded 950."""
    counted = Counted(calls=10, prompt_tokens=3_000, cached=1_900, generated=960, preemptions=0)
    tokens = Account(10, 3_000, 1_900, never_seen=1_000, rounding=60)
    return Wave(Key(CELL, repetition, lengths, arm), 0, wall, (wall - 1, wall), counted, tokens, strangers=0.25)


RATES = [
    Rates(CELL, prefill=1_000, decode=190),
    Rates(CELL, 500, 190),
    Rates(CELL, 2_000, 190),
    Rates(Cell(1, 1), 1, 1),
]


class TestReport:
    def test_the_floor_is_what_was_never_seen_and_the_decode_steps_at_the_cells_median_rates(self) -> None:
        assert floor(wave(), RATES) == 1_000 / 1_000 + (960 - 10) / 190

    def test_a_speedup_compares_waves_of_the_same_repetition(self) -> None:
        ours = [wave(wall=5, repetition=0), wave(wall=10, repetition=1), wave(wall=1, repetition=2)]
        theirs = [wave("textbook", 20, repetition=1), wave("textbook", 5, repetition=0)]
        assert report.speedup(ours, theirs) == report.Spread(1.5, 1.0, 2.0)
        assert report.speedup(ours[2:], theirs) is None

    def test_recomputed_tokens_with_and_without_rounding(self) -> None:
        accounts = [wave().account, replace(wave().account, cached=1_700)]
        assert report.recomputed(accounts, rounding=True) == (1_100 + 1_300) / 2_000
        assert report.recomputed(accounts, rounding=False) == (1_040 + 1_240) / 2_000

    def test_a_bar_is_met_by_the_worst_cell_and_arm_or_not_run(self) -> None:
        waves = [wave("redraft", 8), wave("redraft_judge", 12), wave("textbook", 16), wave("one_chat", 7)]
        waves[1] = replace(waves[1], account=replace(waves[1].account, cached=1_600))
        found = {bar.text: bar for bar in report.bars(report.grouped(waves), RATES)}
        account_bar = found["computed / never seen, without rounding, 512 tokens: at most 1.20"]
        assert (account_bar.measured, account_bar.met) == (1.34, False)
        slower = found["fixed lengths, every cell, times B2: at least 1.00"]
        assert (slower.measured, slower.met) == (7 / 8, False)
        unknown = found["fixed lengths, 512x8, times B1: at least 1.30"]
        assert (unknown.measured, unknown.met) == (None, False)

    def test_checks_tell_of_other_counts_lengths_and_evictions(self) -> None:
        sound = replace(wave(), counted=Counted(10, 3_000, 1_900, 960, 0))
        assert "differ by at most 0." in report.checks([sound])[0]
        assert report.checks([sound])[1].endswith("planned: 0.")
        doubtful = replace(sound, counted=Counted(9, 3_010, 1_900, 960, 2))
        judged = replace(wave("redraft_judge"), counted=Counted(28 - 3, 3_000, 1_900, 960 + 15, 0))
        apart, unequal, spared, strangers, preempted, evicted = report.checks([doubtful, judged])
        assert "at most 10." in apart
        assert unequal.endswith("planned: 1.")
        assert spared.endswith("text: 3.")
        assert strangers.endswith("0.25 on average, 0.25 in the worst wave.")
        assert preempted == "Preemptions: 2."
        assert evicted.endswith("80.")

    def test_the_section_and_the_plot_hold_every_arm_that_ran(self, tmp_path: Path) -> None:
        results = Results(tmp_path / "results" / "performance.jsonl")
        results.begin(ORIGIN)
        waves = [
            wave(arm, 10 + place) for place, arm in enumerate(("textbook", "one_chat", "redraft", "redraft_judge"))
        ]
        waves.append(wave("self_refine", lengths="natural"))
        records: list[Wave | Rates] = [*waves, *RATES]
        for record in records:
            results.append(record)
        page = report.section(results, date(2026, 1, 2))
        assert "Model a-model, 2026-01-02, commit abc1234. a machine; vllm 1;" in page
        row = next(line for line in page.splitlines() if line.startswith("| Redraft, the same calls |"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[1:7] == ["10 (10 to 10)", "80", "11.5", "11.9", "0.83 (0.83 to 0.83)", "0.92 (0.92 to 0.92)"]
        assert cells[7:] == ["2.00", "5.0", "1,500", "550", "480", "1.100", "1.040"]
        assert "| Redraft, preset `self_refine` |" in page
        report.plot(results.waves(), tmp_path / "performance.svg")
        assert "<svg" in (tmp_path / "performance.svg").read_text()


class TestResults:
    def test_a_file_gives_back_what_it_was_given(self, tmp_path: Path) -> None:
        results = Results(tmp_path / "performance.jsonl")
        results.begin(ORIGIN)
        results.append(wave())
        results.append(RATES[0])
        results.begin(ORIGIN)
        assert (results.origin(), results.waves(), results.rates()) == (ORIGIN, [wave()], [RATES[0]])

    def test_another_commits_waves_are_not_mixed_in(self, tmp_path: Path) -> None:
        results = Results(tmp_path / "performance.jsonl")
        results.begin(ORIGIN)
        with pytest.raises(OtherOrigin):
            results.begin(replace(ORIGIN, commit="def5678"))


METRICS = """# TYPE vllm:{name} counter
vllm:{name}_total{{engine="0"}} {value}
"""


@dataclass
class PlainServer:
    """A chat server with vLLM's counters. ``misread``: prompt tokens that it reports beyond those that it was sent."""

    misread: int = 0
    served: int = 0
    tokenizer: Characters = field(default_factory=Characters)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.served += 1
        text = self.tokenizer.apply_chat_template(body["messages"], tokenize=False, add_generation_prompt=True)
        usage = {"prompt_tokens": len(text) + self.misread}
        return httpx.Response(200, json={"choices": [{"message": {"content": "ab"}}], "usage": usage})


@dataclass(frozen=True)
class CountingServer(Server):
    """Counts the calls of a PlainServer; 10 tokens of each are cached."""

    plain: PlainServer = field(default_factory=PlainServer)

    async def counters(self) -> dict[str, float]:
        calls = float(self.plain.served)
        return {"vllm:request_success_total": calls, "vllm:prefix_cache_hits_total": 10 * calls}


def bench(plain: PlainServer, file: Path) -> Bench:
    results = Results(file)
    results.begin(ORIGIN)
    server = CountingServer("http://server", psutil.Process(), plain)
    return Bench({"plain": Served(server, client(plain))}, Prompts(Characters()), Characters(), results)


class TestWaves:
    def test_each_repetition_begins_with_another_arm(self) -> None:
        plan = Plan([CELL], 2, ["fixed", "natural"], ["textbook", "redraft", "beam"])
        assert [(key.lengths, key.arm) for key in plan.waves(CELL, 1)] == [
            ("fixed", "redraft"),
            ("fixed", "textbook"),
            ("natural", "redraft"),
            ("natural", "beam"),
            ("natural", "textbook"),
        ]
        assert plan.servers == {"plain", "redraft"}

    async def test_what_is_there_already_is_not_run_again(self, tmp_path: Path) -> None:
        plain = PlainServer()
        running = bench(plain, tmp_path / "performance.jsonl")
        plan = Plan([Cell(200, 2)], 1, ["fixed"], ["textbook", "one_chat"])
        await running.complete(plan)
        waves, rates = running.results.waves(), running.results.rates()
        assert [wave.key.arm for wave in waves] == ["textbook", "one_chat"]
        assert len(rates) == 2
        served = 2 * 2 * 5 + 2 * 2 * (4096 // 400 + 2)
        assert plain.served == served
        await running.complete(plan)
        assert running.results.waves() == waves
        assert plain.served == served
        await running.complete(replace(plan, repetitions=2))
        assert [wave.key.repetition for wave in running.results.waves()] == [0, 0, 1, 1]

    async def test_a_client_loops_account_is_made_of_its_messages_and_the_servers_count(self, tmp_path: Path) -> None:
        running = bench(PlainServer(), tmp_path / "performance.jsonl")
        found = await running.wave(Key(Cell(200, 2), 0, "fixed", "one_chat"), 0)
        assert (found.account.calls, found.account.cached) == (10, 100)
        assert found.counted.calls == 10
        assert len(found.seconds) == 2
        assert 0 < max(found.seconds) <= found.wall

    async def test_a_prompt_that_the_server_read_otherwise_is_an_error(self, tmp_path: Path) -> None:
        running = bench(PlainServer(misread=1), tmp_path / "performance.jsonl")
        with pytest.raises(PromptsDiffer):
            await running.wave(Key(Cell(200, 1), 0, "fixed", "one_chat"), 0)
