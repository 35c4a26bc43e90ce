import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from service.evaluators.text.sentences import count_sentences


def check(text: str, sentences: int) -> None:
    assert count_sentences(text) == sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", 0),
        ("...", 0),
        ("No stop", 1),
        ("One. Two! Three? Four…", 4),
        ("What?! Really...", 2),
        ("Wow!!! Really?? Yes.", 3),
        ("The answer is 42. It was easy.", 2),
        ("A title\n\nA sentence. Another", 3),
        ("A title\r\n\r\nA sentence.", 2),
        ("It broke over\ntwo lines.", 1),
        ("The end. (Really.)", 2),
        ("It costs $5.50. Cheap.", 2),
    ],
)
def test_a_sentence_ends_at_a_stop_or_with_its_paragraph(text: str, sentences: int) -> None:
    check(text, sentences)


@pytest.mark.parametrize("stop", sorted(set(regex.findall(r"\p{STerm}", "".join(map(chr, range(0xD800))))) - {"၊"}))
def test_every_stop_of_unicode_ends_a_sentence(stop: str) -> None:
    check(f"字{stop} 字{stop}", 2)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("今日は。元気ですか\uff1fはい", 3),
        ("今天很好.我们走吧.", 2),
        ("你好!Hello!", 2),
        ("你好。 then", 2),
        ("第3.5节很好。", 1),
        ("Node.js很好。版本2.0也好！", 2),
        ("真的吗……？我不信。", 2),
        ("क्या? हाँ। ठीक है।", 3),
        ("مرحبا. كيف حالك؟ جيد\u06d4 شكرا", 4),
        ("Привет!Как дела?", 2),
        ("네. 그렇습니다.", 2),
        ("Τι; Ναι. Ο κ. Α. ήρθε.", 3),
        ("Τι\u037e Ναι.", 2),
        ("Go; stop.", 1),
        ("སྐད། ཡིག།", 2),
        ("ស្អាត។ល្អ។", 2),
        ("ქართული ენა. მეორე წინადადება.", 2),
        ("ລາວ\n\nລາວ", 2),
    ],
)
def test_other_scripts_end_sentences_too(text: str, sentences: int) -> None:
    check(text, sentences)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("“快走吧！”妈妈喊道。", 1),
        ("“好。”“走吧。”", 2),
        ("他说：“我来了。你呢？”", 2),
        ("张三问：“你吃了吗？”李四答：“吃了！”", 2),
        ("“真的？！”她瞪大了眼睛，“你没骗我？”", 1),
        ("他走了（真的！）然后回来。", 1),
        ("这是《明天，你好！加油》。", 1),
        ("『……』と彼は言った。", 1),
        ("「……！」", 0),
        ("“가자!” 그가 말했다.", 1),
        ("“Stop!” he said. (She did not.) **Bold.**", 3),
        ("“Go!”—he said. “Wait…” she said.", 2),
        ("“What?!” “Nothing.”", 2),
        ("He said “go.” Then he left.", 2),
        ("»Komm!« sagte er. »Ja.« Er ging.", 3),
        ("Er sagte: „Ich gehe.“ Dann ging er.", 2),
        ("Il a dit « Non. » et partit. « Oui ! » « Bon. »", 3),
        ("¡Hola!, dijo. ¿Qué?, ¿cómo?", 2),
        ("Он сказал: «Иди!» — и ушёл. Всё.", 2),
        ("«Иди!» — сказал он.", 1),
    ],
)
def test_a_stop_in_quotation_marks_ends_the_sentence_only_where_nothing_continues(text: str, sentences: int) -> None:
    check(text, sentences)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. Smith met J. K. Rowling in the U.S. Capitol. They talked.", 2),
        ("Fruit, e.g. apples, costs 3.50 euros. Buy it.", 2),
        ("Fruit etc. (and more) sold. End.", 2),
        ("The U.S. Army left. He lives in the U.S. She does not.", 3),
        ("It was plan B. The end. It was I. He left.", 4),
        ("Mt. Everest is high. Gen. Grant and Capt. Cook, pp. 3 and 4, of Apple Inc. knew.", 2),
        ("No. I won't. No. 5 is good. He said no. Peter left.", 5),
        ("We need approx. five, min. two. It is 5 km. Then we left.", 3),
        ("I live on Main St. It is quiet. He is 6 ft. tall.", 3),
        ("Ph.D. students work. OK. Let's go.", 3),
        ("It is 5 p.m. We go at 6 a.m. sharp.", 2),
        ("In Feb. It snowed. Jan. 5 was cold.", 3),
        ("Smith et al. found it. Cf. Fig. 2.", 2),
        ("St. Louis vs. Chicago. Go!", 2),
        ("Das ist z.B. gut. D.h. nicht schlecht. Usw. usf.", 3),
        ("Das sind 3,5 Mio. Euro. Die Firma zahlt.", 2),
        ("Prof. Müller (geb. 1950) lebt in der Goethe-Str. 5.", 1),
        ("M. Le Pen est là. J'habite au 5, av. Foch. C'est loin.", 3),
        ("El Dr. Paz vive en EE. UU. El otro no.", 2),
        ("Это стоит 5 тыс. руб. Дорого!", 2),
        ("г. Москва, ул. Мира, д. 1. Он там живёт.", 2),
        ("etc. etc. etc.", 1),
    ],
)
def test_abbreviations_end_no_sentence(text: str, sentences: int) -> None:
    check(text, sentences)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Wir treffen uns am 9. August im Park.", 1),
        ("Am 9. 8. 2024 war es. Gut.", 2),
        ("Der 2. Weltkrieg endete 1945. Danach kam Frieden.", 2),
        ("Die Antwort ist 42. Das war leicht.", 2),
        ("Es waren 12. Alle kamen.", 2),
        ("Ludwig XIV. war König.", 1),
        ("1. First thing.\n2. Second thing.", 2),
        ("1) First.\n2) Second.\n3) Third", 3),
        ("a. First.\nb. Second.", 2),
        ("１．りんご。\n２．みかん。", 2),
        ("2.苹果很好吃。", 1),
        ("- an item\n- another item", 1),
        ("- buy milk.\n- sell eggs.", 2),
    ],
)
def test_numbers_with_a_full_stop(text: str, sentences: int) -> None:
    check(text, sentences)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("the cat sat down. the dog ran away. they slept all day.", 3),
        ("i love NYC. it is big. they say so.", 3),
        ("this is great! is it? yes.", 3),
        ("We have new phones. eSIM works too.", 2),
        ("He works at Yahoo! and likes it. Is it true? he asked.", 2),
        ("wait... what is it. ok.", 2),
        ("Well... maybe not. He left (at 5 p.m.) and slept.", 2),
    ],
)
def test_small_letters_begin_sentences(text: str, sentences: int) -> None:
    check(text, sentences)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("See https://example.com/a!b?c=d. Write to a.b@example.org! Version 2.0.1 is out.", 3),
        ("if (a != b) then stop.", 1),
        ("Yes.[2] No.¹ Maybe [3].", 3),
        ("Hello!😀 World 🎉. Bye.👋", 3),
        ("Text *really*. **Bold!** _Next._ End", 4),
    ],
)
def test_addresses_notes_and_emoji(text: str, sentences: int) -> None:
    check(text, sentences)


@given(st.lists(st.text(alphabet="字あア가", min_size=1), min_size=1), st.sampled_from("。！？｡．॥።։"))
def test_so_many_stops_so_many_sentences(sentences: list[str], stop: str) -> None:
    assert count_sentences("".join(f"{sentence}{stop}" for sentence in sentences)) == len(sentences)


@given(st.text(alphabet="aB字 .!?。“”「」(1\n\u0301😀"))
def test_there_are_no_more_sentences_than_letters_and_digits(text: str) -> None:
    assert count_sentences(text) <= sum(map(str.isalnum, text))
    assert (count_sentences(text) == 0) == (not any(map(str.isalnum, text)))
