"""Which language a writer is spoken to in."""

import re

_HAN = re.compile("[\u3400-\u9fff\U00020000-\U0003ffff]")
_WORD = re.compile("[A-Za-z\u00c0-\u024f\u0370-\u058f\u0600-\u06ff\u0900-\u0dff\u3040-\u30ff\uac00-\ud7af]+")


def instruction_language(request: str) -> str:
    """The language for instructions to the writer of a request: "zh" where most of it is Chinese, else "en".

    A Chinese character weighs as much as a whole word of another script, so that names and code in Latin letters do
    not decide. A long request is known by its end.
    """
    end = request[-4000:]
    return "zh" if len(_HAN.findall(end)) > len(_WORD.findall(end)) else "en"
