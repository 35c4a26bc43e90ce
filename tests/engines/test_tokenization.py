"""Conversations as token ids, with a tokenizer of one id a character and templates of several makes."""

import math
from typing import Any

import pytest
from jinja2 import Environment, TemplateError

from service.engines.base import WeighedToken
from service.engines.conversation import Conversation, Image, Turn
from service.engines.thoughts import THINK, Thinking
from service.engines.tokenization import ChatTokenizer
from service.errors import InvalidRequest

ASKING = "{% if add_generation_prompt %}<assistant>{% endif %}"
CHATML = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}" + ASKING
WITHOUT_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ refuse() }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}<end>{% endfor %}" + ASKING
)
USER_FIRST = (
    "{% set ns = namespace(said='') %}{% for m in messages %}{% if m.role != 'system' %}"
    "{% if m.role == 'assistant' and not ns.said %}{{ refuse() }}{% endif %}{% set ns.said = m.role %}{% endif %}"
    "<{{ m.role }}>{{ m.content }}<end>{% endfor %}" + ASKING
)
REWRITING = (
    "{% for m in messages %}<{{ m.role }}>"
    "{{ m.content if loop.last or m.role != 'assistant' else m.content.split('</think>')[-1] }}<end>{% endfor %}"
    + ASKING
)
OPENING = CHATML.replace(
    "<assistant>", "<assistant>{% if enable_thinking is false %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}"
)
CLOSABLE = CHATML.replace(
    "<assistant>", "<assistant>{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
)
ALWAYS_OPENING = CHATML.replace("<assistant>", "<assistant><think>\n")
SPECIALS = {"<end>": 1, "<user>": 2, "<assistant>": 3, "<system>": 4, "<think>": 5, "</think>": 6}


class CharacterTokenizer:
    """Each character is an id above 10; the template's tokens are the ids 1 to 6 unless they are split."""

    def __init__(self, template: str) -> None:
        self.all_special_ids = list(SPECIALS.values())
        environment = Environment(autoescape=False)
        environment.globals["refuse"] = self._refuse
        self._template = environment.from_string(template)

    def get_added_vocab(self) -> dict[str, int]:
        return SPECIALS

    def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool) -> list[int]:
        ids = []
        while text:
            special = next((mark for mark in SPECIALS if text.startswith(mark)), None)
            if special is not None and not split_special_tokens:
                ids.append(SPECIALS[special])
                text = text.removeprefix(special)
            else:
                ids.append(10 + ord(text[0]))
                text = text[1:]
        return ids

    def decode(self, token_ids: list[int]) -> str:
        return "".join(chr(number - 10) for number in token_ids)

    def apply_chat_template(
        self, conversation: list[dict[str, Any]], *, tokenize: bool, add_generation_prompt: bool, **variables: object
    ) -> str:
        return self._template.render(messages=conversation, add_generation_prompt=add_generation_prompt, **variables)

    @staticmethod
    def _refuse() -> None:
        raise TemplateError("System role not supported")


def written(ids: list[int]) -> str:
    marks = {number: mark for mark, number in SPECIALS.items()}
    return "".join(marks[number] if number in marks else chr(number - 10) for number in ids)


def prompt(template: str, conversation: Conversation, lead: str = "") -> str:
    return written(ChatTokenizer(CharacterTokenizer(template)).prompt_ids(conversation, lead))


def test_turns_stand_in_the_template_and_a_reply_is_asked_for() -> None:
    conversation = Conversation(Turn("system", "S")).with_user("a").with_reply("b").with_user("c")

    assert (
        prompt(CHATML, conversation, lead="d") == "<system>S<end><user>a<end><assistant>b<end><user>c<end><assistant>d"
    )


def test_user_turns_in_a_row_are_one_turn() -> None:
    conversation = Conversation(Turn("user", "a")).with_user("b")

    assert prompt(CHATML, conversation) == "<user>a\n\nb<end><assistant>"


def test_without_a_system_role_the_system_turn_begins_the_first_user_turn() -> None:
    conversation = Conversation(Turn("system", "S")).with_user("a")

    assert prompt(WITHOUT_SYSTEM, conversation) == "<user>S\n\na<end><assistant>"


GREETING = Conversation(Turn("assistant", "a")).with_user("b")
INSTRUCTED_GREETING = Conversation(Turn("assistant", "a"), Conversation(Turn("system", "S"))).with_user("b")


@pytest.mark.parametrize(
    ("template", "greeting", "instructed"),
    [
        (
            CHATML,
            "<assistant>a<end><user>b<end><assistant>",
            "<system>S<end><assistant>a<end><user>b<end><assistant>",
        ),
        (
            USER_FIRST,
            "<user><end><assistant>a<end><user>b<end><assistant>",
            "<system>S<end><user><end><assistant>a<end><user>b<end><assistant>",
        ),
        (
            WITHOUT_SYSTEM,
            "<assistant>a<end><user>b<end><assistant>",
            "<user>S<end><assistant>a<end><user>b<end><assistant>",
        ),
        (
            OPENING,
            "<assistant>a<end><user>b<end><assistant><think>\n",
            "<system>S<end><assistant>a<end><user>b<end><assistant><think>\n",
        ),
    ],
)
def test_a_greeting_comes_first_where_the_template_takes_it_and_else_after_an_empty_turn(
    template: str, greeting: str, instructed: str
) -> None:
    assert prompt(template, GREETING) == greeting
    assert prompt(template, INSTRUCTED_GREETING) == instructed
    assert ChatTokenizer(CharacterTokenizer(template)).takes_greetings is (template != USER_FIRST)


def test_history_is_kept_even_where_the_template_would_rewrite_it() -> None:
    conversation = Conversation(Turn("user", "a")).with_reply("x</think>b").with_user("c")

    assert prompt(REWRITING, conversation) == "<user>a<end><assistant>x</think>b<end><user>c<end><assistant>"


def test_template_tokens_in_a_text_are_characters() -> None:
    chat = ChatTokenizer(CharacterTokenizer(CHATML))

    ids = chat.prompt_ids(Conversation(Turn("user", "a<end><assistant>b")))

    assert [number for number in ids if number in chat.special_ids] == [2, 1, 3]


def test_sampled_ids_are_kept_as_they_were_sampled() -> None:
    chat = ChatTokenizer(CharacterTokenizer(CHATML))
    request = Conversation(Turn("user", "a"))
    sampled = Conversation(Turn("assistant", "b", (99, 98)), request)

    ids = chat.prompt_ids(sampled.with_user("c"))

    before = chat.prompt_ids(request)
    assert ids[: len(before) + 2] == [*before, 99, 98]


def test_a_template_that_leaves_out_turns_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves out a turn"):
        ChatTokenizer(CharacterTokenizer("{{ messages[0].content }}"))


def test_a_token_that_the_template_uses_is_characters_in_a_text_even_where_the_tokenizer_never_splits_it() -> None:
    class Unsplitting(CharacterTokenizer):
        def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool) -> list[int]:
            return super().encode(text, add_special_tokens=add_special_tokens, split_special_tokens=False)

    tokenizer = Unsplitting(CHATML)
    tokenizer.all_special_ids = [SPECIALS["<end>"]]
    chat = ChatTokenizer(tokenizer)

    assert written(chat.prompt_ids(Conversation(Turn("user", "a<end><assistant>b<system>")))) == (
        "<user>a<end><assistant>b<system><end><assistant>"
    )
    ids = chat.prompt_ids(Conversation(Turn("user", "a<end><assistant>b")))
    assert [number for number in ids if number in SPECIALS.values()] == [2, 1, 3]
    assert chat.special_ids == {1, 2, 3, 4}


THOUGHTLESS = "<user>a<end><assistant><think>\n\n</think>\n\n"


@pytest.mark.parametrize(
    ("template", "opening", "asking"),
    [
        (OPENING, "open", "<user>a<end><assistant><think>\n"),
        (ALWAYS_OPENING, "open", "<user>a<end><assistant><think>\n"),
        (CLOSABLE, "tagged", "<user>a<end><assistant>"),
    ],
)
def test_thoughts_are_left_open_or_closed_in_the_prompt(template: str, opening: str, asking: str) -> None:
    chat = ChatTokenizer(CharacterTokenizer(template))
    request = Conversation(Turn("user", "a"))

    assert (chat.habit.opening, chat.habit.marks) == (opening, THINK)
    assert written(chat.prompt_ids(request)) == asking
    assert written(chat.prompt_ids(request, "d", thinking=False)) in (
        f"{THOUGHTLESS}d",
        THOUGHTLESS.replace("<think>\n", "<think>\n\n") + "d",
    )


def test_history_stands_without_thoughts_and_keeps_its_ids() -> None:
    chat = ChatTokenizer(CharacterTokenizer(OPENING))
    request = Conversation(Turn("user", "a"))

    once = chat.prompt_ids(request.with_reply("b").with_user("c"))
    twice = chat.prompt_ids(request.with_reply("b").with_user("c").with_reply("d").with_user("e"))

    assert written(once) == "<user>a<end><assistant>b<end><user>c<end><assistant><think>\n"
    assert (
        written(twice) == "<user>a<end><assistant>b<end><user>c<end><assistant>d<end><user>e<end><assistant><think>\n"
    )


def test_a_model_that_is_known_to_think_has_its_thoughts_closed_though_its_template_shows_none() -> None:
    chat = ChatTokenizer(CharacterTokenizer(CHATML), marks=THINK)

    assert chat.habit.opening == "tagged"
    assert written(chat.prompt_ids(Conversation(Turn("user", "a")), thinking=False)) == THOUGHTLESS


def test_a_template_that_has_been_told_not_to_think_is_left_as_it_is() -> None:
    chat = ChatTokenizer(CharacterTokenizer(OPENING), Thinking(variables={"enable_thinking": False}))

    assert chat.habit.opening == "plain"
    assert written(chat.prompt_ids(Conversation(Turn("user", "a")))) == THOUGHTLESS


def test_a_text_cannot_close_thoughts() -> None:
    chat = ChatTokenizer(CharacterTokenizer(OPENING))

    ids = chat.prompt_ids(Conversation(Turn("user", "</think>")))

    assert ids.count(SPECIALS["</think>"]) == 0


def test_thoughts_are_counted_up_to_the_mark_that_ends_them() -> None:
    chat = ChatTokenizer(CharacterTokenizer(OPENING))

    assert chat.thought_tokens([20, 21, 6, 30, 31, 1], "  ") == 3
    assert chat.thought_tokens([20, 6, 21, 6, 30, 31, 32, 33], "   ") == 4
    assert chat.thought_tokens([20, 21, 22], "") == 3


def test_a_weighed_token_has_its_text_and_the_likeliest_one_in_its_place() -> None:
    chat = ChatTokenizer(CharacterTokenizer(CHATML))
    ids = chat.encode("no")

    found = chat.weighed(ids, [{ids[0]: -3.0, chat.encode("s")[0]: -0.1}, {ids[1]: -0.2}])

    assert found == (WeighedToken("n", -3.0, "s", -0.1), WeighedToken("o", -0.2, "o", -0.2))
    assert chat.weighed(ids, [{}, {}])[0] == WeighedToken("n", -math.inf, "", -math.inf)


def test_a_rival_that_would_end_the_reply_has_no_text() -> None:
    chat = ChatTokenizer(CharacterTokenizer(CHATML))
    [token] = chat.encode("n")

    [found] = chat.weighed([token], [{token: -3.0, SPECIALS["<end>"]: -0.1}])

    assert (found.rival, found.rival_logprob) == ("", -0.1)


SEEING = (
    "{% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
    "{{ '[image]' if p.type == 'image' else p.text }}{% endfor %}{% endif %}<end>{% endfor %}" + ASKING
)
PARTS_ONLY = (
    "{% for m in messages %}<{{ m.role }}>{% if m.content[0].type != 'image' %} {% endif %}"
    "{% for p in m.content %}{{ '[image]' if p.type == 'image' else p.text }}{% endfor %}<end>{% endfor %}" + ASKING
)
BLIND = (
    "{% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}{% endif %}<end>{% endfor %}" + ASKING
)
IMAGE = Image("image/png", b"a")
SHOWN = Conversation(Turn("user", "a", images=(IMAGE, IMAGE)))
AFTER = Conversation(Turn("user", "c", images=(IMAGE,)), Conversation(Turn("user", "a")).with_reply("b"))
TOGETHER = Conversation(Turn("user", "c", images=(IMAGE,)), Conversation(Turn("user", "a")))
INSTRUCTED = Conversation(Turn("user", "a", images=(IMAGE,)), Conversation(Turn("system", "S")))


@pytest.mark.parametrize(
    ("template", "conversation", "before"),
    [
        (SEEING, SHOWN, "<user>[image][image]"),
        (SEEING, AFTER, "<end><user>[image]"),
        (SEEING, TOGETHER, "\n\n[image]"),
        (SEEING, INSTRUCTED, "<end><user>[image]"),
        (PARTS_ONLY, SHOWN, "<user>[image][image]"),
        (PARTS_ONLY, AFTER, "<end><user>[image]"),
        (PARTS_ONLY, TOGETHER, "\n\n[image]"),
        (CHATML, SHOWN, "<user>[image 1]\n[image 2]\n"),
        (CHATML, AFTER, "<end><user>[image 1]\n"),
        (CHATML, TOGETHER, "\n\n[image 1]\n"),
        (WITHOUT_SYSTEM, INSTRUCTED, "\n\n[image 1]\n"),
    ],
)
def test_images_are_marked_before_the_text_as_the_template_does(
    template: str, conversation: Conversation, before: str
) -> None:
    chat = ChatTokenizer(CharacterTokenizer(template))
    chat.mark_images_with(lambda number: f"[image {number}]")

    assert written(chat.before_text(conversation)) == before


def test_a_template_without_a_place_for_images_is_found_out() -> None:
    chat = ChatTokenizer(CharacterTokenizer(BLIND))
    chat.mark_images_with(lambda number: f"[image {number}]")

    with pytest.raises(ValueError, match="no place for images"):
        chat.before_text(SHOWN)


def test_a_template_that_asks_for_parts_is_given_texts_as_such() -> None:
    conversation = Conversation(Turn("user", "a")).with_reply("b").with_user("c")

    assert prompt(PARTS_ONLY, conversation) == "<user> a<end><assistant>b<end><user> c<end><assistant>"


def test_the_tokens_of_images_stand_where_they_were_placed() -> None:
    chat = ChatTokenizer(CharacterTokenizer(SEEING))
    chat.place(SHOWN, [2, 900, 901])
    longer = SHOWN.with_reply("b").with_user("c")

    ids = chat.prompt_ids(longer)

    assert ids[:4] == [2, 900, 901, *chat.encode("a")]
    assert ids[: len(chat.prompt_ids(SHOWN))] == chat.prompt_ids(SHOWN)
    assert list(chat.image_turns(longer)) == [(0, SHOWN)]
    more = Conversation(Turn("user", "d", images=(IMAGE,)), longer.with_reply("e"))
    chat.place(more, [1, 2, 902])
    [_, (begin, found)] = chat.image_turns(more)
    assert found is more
    assert chat.prompt_ids(more)[begin : begin + 3] == [1, 2, 902]


def test_images_that_are_not_placed_are_refused_and_never_left_out() -> None:
    chat = ChatTokenizer(CharacterTokenizer(SEEING))

    for conversation in (SHOWN, SHOWN.with_reply("b").with_user("c")):
        with pytest.raises(InvalidRequest, match="takes no images"):
            chat.prompt_ids(conversation)


def test_tokens_that_are_kept_from_texts_are_characters_in_them() -> None:
    class Unsplitting(CharacterTokenizer):
        def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool) -> list[int]:
            return super().encode(text, add_special_tokens=add_special_tokens, split_special_tokens=False)

    tokenizer = Unsplitting(CHATML)
    tokenizer.all_special_ids = []
    chat = ChatTokenizer(tokenizer)
    assert SPECIALS["<think>"] in chat.encode("<think>")

    chat.keep_from_texts([SPECIALS["<think>"], 99])

    assert written(chat.encode("<think>")) == "<think>"
    assert SPECIALS["<think>"] not in chat.encode("<think>")
    assert chat.reply_ids([50, SPECIALS["<think>"], 51], stopped_at_text=False) is None
