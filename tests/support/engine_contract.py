"""What every engine must do. A test module that names an ``engine`` fixture runs these by inheriting the class."""

import asyncio
import json
import math
import re
from collections.abc import Awaitable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from service.engines.base import SEEDS, Call, Choose, Completion, Engine, Reading, Sample, Sampling, Thought, Weigh
from service.engines.conversation import Conversation, Image, Turn
from service.engines.remote.probes import GREY_PNG
from service.engines.siblings import sample_siblings
from service.errors import InvalidRequest, PromptTooLong

SHORT = 12
GREEDY = Sampling(temperature=0.0, max_tokens=SHORT)
QUESTION = Conversation(Turn("user", "Name three colours of the rainbow, and say one sentence about each of them."))


LIST = 'start: "- " NAME "\\n- " NAME "."\nNAME: /[a-z]{3,12}/\n'
NEITHER = "start: TEXT\nTEXT: /[a-z]+/ & /[A-Z]+/\n"
UNREADABLE = "start: TEXT\nTEXT: /(?=a)/\n"
WORDS = "word " * 20_000
ENDLESS = Conversation(Turn("user", WORDS))


def cost_of(completion: Completion) -> int:
    return completion.usage.prompt_tokens


async def refused_as_too_long(attempt: Awaitable[object]) -> None:
    with pytest.raises(PromptTooLong) as refused:
        await attempt
    prompt_tokens, context_tokens = refused.value.prompt_tokens, refused.value.context_tokens
    assert prompt_tokens is not None
    assert context_tokens is not None
    assert prompt_tokens > context_tokens > 1000


class EngineContract:
    """What every engine does."""

    async def test_it_has_a_name_and_something_that_computes(self, engine: Engine) -> None:
        assert engine.model
        assert engine.backend is engine.backend is not None

    async def test_a_reply_has_text_and_its_cost(self, engine: Engine) -> None:
        reply = await engine.call(Sample(QUESTION, GREEDY))

        assert reply.text.strip()
        assert reply.usage.calls == 1
        assert reply.usage.prompt_tokens > 10
        assert 0 < reply.usage.completion_tokens <= SHORT
        assert 0 <= reply.usage.cached_tokens < reply.usage.prompt_tokens

    async def test_greedy_replies_are_the_same(self, engine: Engine) -> None:
        first = await engine.call(Sample(QUESTION, GREEDY))
        second = await engine.call(Sample(QUESTION, GREEDY))

        assert first.text == second.text

    async def test_max_tokens_bounds_the_reply_and_says_so(self, engine: Engine) -> None:
        reply = await engine.call(Sample(QUESTION, Sampling(temperature=0.0, max_tokens=2)))

        assert reply.finish_reason == "length"
        assert reply.usage.completion_tokens == 2

    async def test_siblings_are_as_many_as_asked_and_each_is_a_call(self, engine: Engine) -> None:
        replies = await sample_siblings(
            engine, Sample(QUESTION, Sampling(temperature=1.0, max_tokens=SHORT, seed=1)), 3
        )

        assert len(replies) == 3
        assert [reply.usage.calls for reply in replies] == [1, 1, 1]
        assert len({reply.text for reply in replies}) > 1

    async def test_a_seed_repeats_and_another_differs(self, engine: Engine) -> None:
        def sampling(seed: int) -> Sampling:
            return Sampling(temperature=1.0, max_tokens=SHORT, seed=seed)

        first, again, other = [await engine.call(Sample(QUESTION, sampling(seed))) for seed in (5, 5, 6)]

        assert first.text == again.text
        assert first.text != other.text

    async def test_the_last_seed_has_siblings_too(self, engine: Engine) -> None:
        last = Sample(QUESTION, Sampling(temperature=1.0, max_tokens=4, seed=SEEDS - 1))
        replies = await sample_siblings(engine, last, 2)

        assert [reply.usage.calls for reply in replies] == [1, 1]

    async def test_a_stop_text_ends_the_reply_before_it(self, engine: Engine) -> None:
        whole = await engine.call(Sample(QUESTION, GREEDY))
        stop = whole.text.split()[2]

        reply = await engine.call(Sample(QUESTION, Sampling(temperature=0.0, max_tokens=SHORT, stop=(stop,))))

        assert stop not in reply.text
        assert whole.text.startswith(reply.text)
        assert reply.finish_reason == "stop"

    async def test_a_stream_is_the_reply_in_pieces_then_the_whole(self, engine: Engine) -> None:
        items = [item async for item in engine.stream(Sample(QUESTION, GREEDY))]

        *pieces, last = items
        assert isinstance(last, Completion)
        assert len(pieces) > 1
        assert "".join(str(piece) for piece in pieces) == last.text
        assert last.usage.completion_tokens > 1

    async def test_a_stream_may_come_in_larger_pieces(self, engine: Engine) -> None:
        *small, whole = [item async for item in engine.stream(Sample(QUESTION, GREEDY))]
        *large, same = [item async for item in engine.stream(Sample(QUESTION, GREEDY), reading=Reading(interval=8))]

        assert isinstance(whole, Completion)
        assert isinstance(same, Completion)
        assert "".join(str(piece) for piece in large) == same.text == whole.text
        assert len(large) <= len(small)

    @pytest.mark.parametrize("interval", [1, 8])
    async def test_a_closed_stream_gives_what_it_had_written_and_what_that_cost(
        self, engine: Engine, interval: int
    ) -> None:
        cut: list[Completion] = []
        sample = Sample(QUESTION, Sampling(temperature=1.0, max_tokens=24, seed=1))
        written = ""
        async with aclosing(engine.stream(sample, reading=Reading(interval=interval, on_cut=cut.append))) as items:
            async for item in items:
                written += str(item)
                if written.count(" ") > 1:
                    break

        whole = await engine.call(sample)
        [completion] = cut
        assert completion.text.startswith(written)
        assert whole.text.startswith(written)
        assert (completion.finish_reason, completion.usage.calls) == ("length", 1)
        assert completion.usage.prompt_tokens == whole.usage.prompt_tokens
        assert 0 < completion.usage.completion_tokens < whole.usage.completion_tokens

    async def test_a_stream_that_is_closed_before_its_completion_was_cut(self, engine: Engine) -> None:
        whole = await engine.call(Sample(QUESTION, GREEDY))
        cut: list[Completion] = []
        written = ""
        reading = Reading(interval=8, on_cut=cut.append)
        async with aclosing(engine.stream(Sample(QUESTION, GREEDY), reading=reading)) as items:
            async for item in items:
                written += str(item)
                if written == whole.text:
                    break

        assert [completion.text for completion in cut] == [whole.text]

    @pytest.mark.parametrize("turns", [1, 4, 16, 64])
    async def test_a_stream_that_is_cancelled_before_its_first_token_cost_nothing(
        self, engine: Engine, turns: int
    ) -> None:
        """Whether it waits for the engine, in its queue, or while its prompt is read."""
        cut: list[Completion] = []
        sample = Sample(QUESTION, Sampling(temperature=1.0, max_tokens=400))

        async def read() -> None:
            async with aclosing(engine.stream(sample, reading=Reading(on_cut=cut.append))) as items:
                async for _ in items:
                    pass

        reader = asyncio.ensure_future(read())
        for _ in range(turns):  # of the event loop
            await asyncio.sleep(0)
        reader.cancel()
        await asyncio.wait([reader])

        assert all(completion.usage.completion_tokens > 0 for completion in cut)

    async def test_a_stream_that_is_read_to_its_end_was_not_cut(self, engine: Engine) -> None:
        cut: list[Completion] = []

        *_, last = [item async for item in engine.stream(Sample(QUESTION, GREEDY), reading=Reading(on_cut=cut.append))]

        assert isinstance(last, Completion)
        assert cut == []

    async def test_an_extended_conversation_finds_its_beginning_in_the_cache(self, engine: Engine) -> None:
        text = " ".join(f"item {number}," for number in range(150))
        start = Conversation(Turn("user", f"Remember this list: {text} and wait."))
        reply = await engine.call(Sample(start, GREEDY))

        longer = await engine.call(Sample(start.with_reply(reply).with_user("Which came first?"), GREEDY))
        branched = await engine.call(Sample(start.with_user("How many are there?"), GREEDY))

        assert longer.usage.cached_tokens > reply.usage.prompt_tokens - 64
        assert branched.usage.cached_tokens > reply.usage.prompt_tokens - 64

    async def test_user_turns_in_a_row_are_one_turn(self, engine: Engine) -> None:
        apart = Conversation(Turn("user", "Name a colour.")).with_user("Only one word.")
        together = Conversation(Turn("user", "Name a colour.\n\nOnly one word."))

        first = await engine.call(Sample(apart, GREEDY))
        second = await engine.call(Sample(together, GREEDY))

        assert abs(cost_of(first) - cost_of(second)) <= 1

    async def test_a_schema_shapes_the_reply(self, engine: Engine) -> None:
        schema = {
            "type": "object",
            "properties": {"colour": {"enum": ["red", "green"]}, "warm": {"type": "boolean"}},
            "required": ["colour", "warm"],
            "additionalProperties": False,
        }

        reply = await engine.call(Sample(QUESTION, Sampling(temperature=0.0, max_tokens=64), schema))

        value = json.loads(reply.text)
        assert value["colour"] in ("red", "green")
        assert isinstance(value["warm"], bool)

    async def test_a_reply_is_one_of_the_choices(self, engine: Engine) -> None:
        choices = ("dark blue", "dark", 'a "warm" red\\')
        sampling = Sampling(temperature=1.0, max_tokens=24, seed=1, choices=choices)

        replies = await sample_siblings(engine, Sample(QUESTION, sampling), 4)
        *_, streamed = [item async for item in engine.stream(Sample(QUESTION, sampling))]

        assert isinstance(streamed, Completion)
        assert {reply.text for reply in (*replies, streamed)} <= set(choices)
        assert {reply.finish_reason for reply in (*replies, streamed)} == {"stop"}

    async def test_a_grammar_shapes_the_reply_or_is_refused(self, engine: Engine) -> None:
        asked = Sample(QUESTION, Sampling(temperature=0.0, max_tokens=24), grammar=LIST)
        if not engine.takes_grammars:
            for attempt in (engine.call(asked), engine.prove(LIST), engine.call(Sample(QUESTION, GREEDY, given="A"))):
                with pytest.raises(InvalidRequest, match="takes no grammars"):
                    await attempt
            return
        await engine.prove(LIST)

        whole = await engine.call(asked)
        *pieces, streamed = [item async for item in engine.stream(asked)]
        replies = await sample_siblings(engine, replace(asked, sampling=Sampling(1.0, max_tokens=24, seed=1)), 3)

        assert isinstance(streamed, Completion)
        assert "".join(str(piece) for piece in pieces) == streamed.text == whole.text
        for reply in (whole, streamed, *replies):
            assert re.fullmatch(r"- [a-z]{3,12}\n- [a-z]{3,12}\.", reply.text)
            assert (reply.finish_reason, reply.breaks_grammar) == ("stop", False)

    async def test_a_text_under_a_grammar_may_be_cut(self, engine: Engine) -> None:
        if not engine.takes_grammars:
            return
        cut = await engine.call(Sample(QUESTION, replace(GREEDY, max_tokens=2), grammar=LIST))
        stopped = await engine.call(Sample(QUESTION, replace(GREEDY, stop=("\n",)), grammar=LIST))

        assert (cut.finish_reason, cut.breaks_grammar) == ("length", False)
        assert re.fullmatch(r"- [a-z]{3,12}", stopped.text)
        assert (stopped.finish_reason, stopped.breaks_grammar) == ("stop", False)

    async def test_a_given_beginning_is_part_of_the_reply_and_of_the_prompt(self, engine: Engine) -> None:
        if not engine.takes_grammars:
            return
        given = "The first colour of the rainbow is"
        plain = await engine.call(Sample(QUESTION, GREEDY))
        asked = Sample(QUESTION, GREEDY, given=given)

        reply = await engine.call(asked)
        *pieces, streamed = [item async for item in engine.stream(asked)]
        shaped = await engine.call(replace(asked, grammar='start: COLOUR\nCOLOUR: " red" | " blue"\n'))

        assert isinstance(streamed, Completion)
        assert "".join(str(piece) for piece in pieces) == streamed.text == reply.text
        assert reply.text.startswith(given)
        assert 0 < reply.usage.completion_tokens <= SHORT
        assert shaped.text in (f"{given} red", f"{given} blue")
        if reply.token_ids is not None:  # else the server writes what is given, and counts it
            assert shaped.usage.completion_tokens < 6
            assert cost_of(plain) + 3 < cost_of(reply) < cost_of(plain) + 12
            longer = await engine.call(Sample(QUESTION.with_reply(reply).with_user("And the last?"), GREEDY))
            assert cost_of(longer) > cost_of(reply) + reply.usage.completion_tokens - 2

    async def test_a_grammar_that_no_text_can_follow_is_refused_before_it_is_sent(self, engine: Engine) -> None:
        if not engine.takes_grammars:
            return
        for grammar in (NEITHER, UNREADABLE):
            for attempt in (engine.prove(grammar), engine.call(Sample(QUESTION, GREEDY, grammar=grammar))):
                with pytest.raises(InvalidRequest, match="cannot sample under this grammar"):
                    await attempt
        assert (await engine.call(Sample(QUESTION, GREEDY, grammar=LIST))).text

    async def test_options_are_weighed_by_log_probabilities(self, engine: Engine) -> None:
        options = ("1", "2", "3", "4", "5")

        rating = QUESTION.with_user("How hard is that, from 1 to 5?")
        choice = await engine.call(Choose(rating, options, prefill="Rating: "))

        probabilities = [math.exp(logprob) for logprob in choice.logprobs]
        assert len(probabilities) == 5
        assert 0 < sum(probabilities) <= 1.001
        assert choice.usage.calls == 1
        assert choice.usage.completion_tokens == 1

    async def test_a_prompt_beyond_the_context_is_refused_with_both_lengths(self, engine: Engine) -> None:
        for attempt in (
            engine.call(Sample(ENDLESS, GREEDY)),
            engine.call(Choose(ENDLESS, ("1",))),
            engine.fit(ENDLESS),
        ):
            await refused_as_too_long(attempt)

    async def test_a_prompt_that_fits_may_leave_too_little_room_for_a_long_reply(self, engine: Engine) -> None:
        await engine.fit(QUESTION, 1000)
        with pytest.raises(PromptTooLong):
            await engine.fit(QUESTION, 1_000_000)

    async def test_no_call_costs_more_than_its_upper_bound(self, engine: Engine) -> None:
        reply = await engine.call(Sample(QUESTION, GREEDY))
        longer = QUESTION.with_reply(reply).with_user("And which is the warmest?")
        schema = {"type": "object", "properties": {"warm": {"type": "boolean"}}, "required": ["warm"]}
        calls: list[Call[Any]] = [
            Sample(QUESTION, GREEDY),
            Sample(longer, replace(GREEDY, thinking=False)),
            Sample(longer, GREEDY, schema),
            Sample(QUESTION, replace(GREEDY, choices=("dark blue", "red"))),
            Choose(longer, ("A", "B"), prefill="Answer: "),
        ]

        for call in calls:
            bound = await engine.upper_bound(call)
            usage = (await engine.call(call)).usage
            assert usage.prompt_tokens <= bound.prompt_tokens < 1_000
            assert usage.completion_tokens <= bound.completion_tokens <= SHORT
            assert (usage.calls, bound.calls) == (1, 1)

    async def test_only_a_user_turn_can_be_replied_to(self, engine: Engine) -> None:
        with pytest.raises(ValueError, match="user turn"):
            await engine.call(Sample(QUESTION.with_reply("Red."), GREEDY))

    async def test_an_image_is_seen_or_refused_but_never_left_out(self, engine: Engine) -> None:
        picture = Image("image/png", GREY_PNG)
        shown = Conversation(Turn("user", "What is it?", images=(picture,))).with_reply("A").with_user("square?")

        if engine.takes_images:
            blind = await engine.call(Sample(Conversation(Turn("user", "What is it?")), GREEDY))
            seeing = await engine.call(Sample(shown, GREEDY))
            assert cost_of(seeing) > cost_of(blind) + 8
            return
        for attempt in (engine.call(Sample(shown, GREEDY)), engine.call(Choose(shown, ("1",))), engine.fit(shown)):
            with pytest.raises(InvalidRequest, match="takes no images"):
                await attempt

    async def test_a_closed_stream_and_a_cancelled_call_leave_the_engine_usable(self, engine: Engine) -> None:
        long = Sampling(temperature=1.0, max_tokens=400)
        async with aclosing(engine.stream(Sample(QUESTION, long))) as items:
            async for _ in items:
                break
        call = asyncio.ensure_future(sample_siblings(engine, Sample(QUESTION, long), 4))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

        await engine.check()
        reply = await engine.call(Sample(QUESTION, GREEDY))
        assert reply.text


class ThinkingContract:
    """What an engine does whose model thinks before it answers QUESTION, in more than two tokens."""

    ASKED = Sampling(temperature=0.0, max_tokens=60)

    async def test_thoughts_are_no_part_of_the_text_and_are_counted(self, engine: Engine) -> None:
        reply = await engine.call(Sample(QUESTION, self.ASKED))

        assert reply.text.strip()
        assert reply.thoughts.strip()
        assert not reply.text.startswith((" ", "\n", "<think>"))
        assert reply.thoughts not in reply.text
        assert 0 < reply.usage.reasoning_tokens < reply.usage.completion_tokens
        assert reply.token_ids is None

    async def test_thoughts_are_streamed_before_the_text(self, engine: Engine) -> None:
        *pieces, last = [item async for item in engine.stream(Sample(QUESTION, self.ASKED))]
        whole = await engine.call(Sample(QUESTION, self.ASKED))

        kinds = [type(piece) for piece in pieces]
        assert kinds == sorted(kinds, key=[Thought, str].index)
        assert kinds.count(Thought) > 1
        assert isinstance(last, Completion)
        assert "".join(piece.text for piece in pieces if isinstance(piece, Thought)).strip() == last.thoughts
        assert "".join(piece for piece in pieces if isinstance(piece, str)) == last.text
        assert (last.text, last.thoughts, last.usage.reasoning_tokens) == (
            whole.text,
            whole.thoughts,
            whole.usage.reasoning_tokens,
        )

    async def test_a_reply_that_is_cut_inside_its_thoughts_has_no_text(self, engine: Engine) -> None:
        cut = Sampling(temperature=0.0, max_tokens=3)

        reply = await engine.call(Sample(QUESTION, cut))
        *_, streamed = [item async for item in engine.stream(Sample(QUESTION, cut))]

        assert (reply.text, reply.finish_reason, reply.usage.reasoning_tokens) == ("", "length", 3)
        assert isinstance(streamed, Completion)
        assert (streamed.text, streamed.finish_reason) == ("", "length")

    async def test_history_has_no_thoughts(self, engine: Engine) -> None:
        reply = await engine.call(Sample(QUESTION, self.ASKED))

        longer = await engine.call(Sample(QUESTION.with_reply(reply).with_user("And then?"), self.ASKED))
        told = await engine.call(Sample(QUESTION.with_reply(reply.text).with_user("And then?"), self.ASKED))

        assert cost_of(longer) == cost_of(told)

    async def test_a_model_that_is_asked_not_to_think_answers_at_once(self, engine: Engine) -> None:
        reply = await engine.call(Sample(QUESTION, Sampling(temperature=0.0, max_tokens=3, thinking=False)))

        assert reply.text
        assert (reply.thoughts, reply.usage.reasoning_tokens) == ("", 0)


class LikelihoodContract:
    """What an engine does that can weigh a given reply."""

    async def test_a_given_reply_is_weighed_token_by_token(self, engine: Engine) -> None:
        begun = await engine.call(Weigh(QUESTION, "Red is warm,"))
        whole = await engine.call(Weigh(QUESTION, "Red is warm, and blue is cold."))
        asked = await engine.call(Sample(QUESTION, GREEDY))

        assert all(logprob <= 0 for logprob in whole.logprobs)
        assert 3 <= len(begun.logprobs) < len(whole.logprobs)
        assert whole.logprobs[: len(begun.logprobs)] == pytest.approx(begun.logprobs, abs=0.3)
        assert (whole.usage.calls, whole.usage.completion_tokens) == (1, 1)
        assert whole.usage.prompt_tokens == asked.usage.prompt_tokens + len(whole.logprobs)
        bound = await engine.upper_bound(Weigh(QUESTION, "Red is warm, and blue is cold."))
        assert (bound.prompt_tokens, bound.tokens) == (whole.usage.prompt_tokens, whole.usage.tokens)

    async def test_a_reply_that_does_not_fit_is_not_weighed(self, engine: Engine) -> None:
        await refused_as_too_long(engine.call(Weigh(ENDLESS, "Yes.")))
        await refused_as_too_long(engine.call(Weigh(QUESTION, WORDS)))

    async def test_only_a_reply_to_a_user_turn_is_weighed(self, engine: Engine) -> None:
        with pytest.raises(ValueError, match="user turn"):
            await engine.call(Weigh(QUESTION.with_reply("Red."), "Green."))
