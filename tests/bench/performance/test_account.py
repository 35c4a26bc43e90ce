"""The token account."""

from bench.performance.account import BLOCK_TOKENS, Account, Call, account
from tests.bench.performance.stand_ins import make_tokens


def test_a_first_prompt_was_never_seen() -> None:
    assert account([Call(make_tokens(40), [900], cached=0)]) == Account(1, 40, 0, never_seen=40, rounding=0)


def test_what_an_earlier_prompt_began_with_is_seen_but_an_incomplete_block_is_lost_to_rounding() -> None:
    shared = make_tokens(BLOCK_TOKENS + 5)
    calls = [Call([*shared, 901], [], cached=0), Call([*shared, 902], [], cached=BLOCK_TOKENS)]
    found = account(calls)
    assert found.never_seen == len(shared) + 2
    assert found.rounding == 5
    assert found.excess == 0


def test_a_reply_is_seen_but_for_its_last_token_which_was_only_sampled() -> None:
    prompt, reply = make_tokens(30), make_tokens(10, 500)
    found = account([Call(prompt, reply, cached=0), Call([*prompt, *reply, 7], [], cached=BLOCK_TOKENS)])
    assert found.never_seen == 30 + 2  # the reply's last token, and the 7
    assert found.rounding == 39 - BLOCK_TOKENS
    assert found.excess == 0


def test_the_last_token_of_a_prompt_is_computed_even_if_all_of_it_is_cached() -> None:
    prompt = make_tokens(2 * BLOCK_TOKENS)
    found = account([Call(prompt, [], cached=0), Call(prompt, [], cached=BLOCK_TOKENS)])
    assert (found.never_seen, found.rounding, found.excess) == (64, BLOCK_TOKENS, 0)


def test_a_whole_block_that_the_cache_did_not_give_is_excess() -> None:
    prompt = make_tokens(2 * BLOCK_TOKENS + 1)
    found = account([Call(prompt, [], cached=0), Call(prompt, [], cached=BLOCK_TOKENS)])
    assert found.excess == BLOCK_TOKENS


def test_replies_of_the_same_prompt_are_told_apart() -> None:
    prompt = make_tokens(40)
    siblings = [Call(prompt, [500, 501, 1], cached=0), Call(prompt, [600, 601, 1], cached=32)]
    found = account([*siblings, Call([*prompt, 600, 601, 9], [], cached=32)])
    assert found.never_seen == 40 + 0 + 1
    assert found.prompt_tokens == 40 + 40 + 43


def test_of_nothing() -> None:
    assert account([]) == Account(0, 0, 0, 0, 0)
