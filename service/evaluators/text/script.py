"""The language in which the writer gets its instructions."""

import re

import regex

from service.evaluators.text.words import paragraphs

_MATERIAL = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]*`|https?://\S+|<[^<>\n]*>", re.DOTALL)
_SENTENCE = re.compile("[^。！？：\n]+")
_HAN = regex.compile(r"\p{Han}")
_OTHER = regex.compile(r"(?V1)[\p{L}--\p{Han}][[\p{L}\p{M}'’-]--\p{Han}]*+")
_NOT_CHINESE = regex.compile(r"(?V1)[[\p{Hiragana}\p{Hangul}]--の]")
_BEGINNING = 200
_ENOUGH = 4


def instruction_language(request: str) -> str:
    """The language of instructions to the writer: "zh" if most of the request is Chinese, else "en".

    A Chinese character counts as much as a whole word in another script, so that names in Latin letters do not decide.
    Characters in a sentence with Hiragana or Hangul are not Chinese. Code, markup and addresses are left out. A short
    beginning decides alone, because what follows may be material to work on: a line that ends with a colon, or else the
    first paragraph. Of a long request the end decides.
    """
    prose = _MATERIAL.sub(" ", request[-4000:])
    blocks = paragraphs(prose)
    beginning = blocks[0].strip() if blocks else ""
    line = beginning.partition("\n")[0].rstrip()
    if line.endswith((":", "：")):
        beginning = line
    chinese, other = _weigh(beginning)
    if len(request) > 4000 or len(beginning) > _BEGINNING or chinese + other < _ENOUGH:
        chinese, other = _weigh(prose)
    return "zh" if chinese >= max(other, 1) else "en"


def _weigh(text: str) -> tuple[int, int]:
    """The number of Chinese characters, and of words in other scripts."""
    sentences = _SENTENCE.findall(text)
    chinese = sum(len(_HAN.findall(sentence)) for sentence in sentences if not _NOT_CHINESE.search(sentence))
    return chinese, len(_OTHER.findall(text))
