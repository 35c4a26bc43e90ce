"""Words of scale after digits, in many languages: "3 million", "5 mil millones", "2 लाख", "70ล้าน".

A word that means different things in different languages has the meaning of the one that writes it with digits more
often: "billion" is the English one.
"""

from collections.abc import Mapping

import regex

_LATIN_ENDINGS = "(?:[aeiuyů]|ów|ům|om|ech|ami|ima|ov)?"
_CYRILLIC_ENDINGS = "(?:[аеиыуі]|ов|ів|ами?|ах|ом)?"

_WORDS: Mapping[int, str] = {
    2: "hundred",
    3: "thousand|tsd|tausend|mille|mil|mila|duizend|tusen|tusind|tuhat(?:ta)?|ezer|mii|bin(?!\\sich)|ribu|libo|ming"
    "|tys|tysi(?:ąc|ące|ęcy)|tis|tisíc[eů]?|tisuć[aeu]|hiljad[aeu]|тыс|тысяч[аеиу]?|тис|тисяч[аіу]?|хиляди|хил|мың"
    "|χιλ|χιλιάδες|אלף|אלפים|ألفا?ً?|آلاف|هزار|ہزار|ह(?:ज़|ज़|ज)ार|হাজার|હજાર|ஆயிரம்|nghìn|ngàn",
    5: "lakhs?|lacs?|लाख|লাখ|লক্ষ|લાખ|ਲੱਖ|லட்சம்|లక్షల?ు?|ಲಕ್ಷ|ലക്ഷം|لاکھ",
    6: f"million(?:s|en|er)?|mio|mn|mln|milli[oó]|mill[oó]n(?:es)?|milh(?:ão|ões)|milioane|milion{_LATIN_ENDINGS}"
    f"|milijun[ai]?|miljo(?:en|ner|n)|miljoonaa?|mily[oô]n|juta|млн|миллион{_CYRILLIC_ENDINGS}|мільйон{_CYRILLIC_ENDINGS}"
    f"|милион{_CYRILLIC_ENDINGS}|εκατ|εκατομμύρι(?:ο|α)|מיליון|מיליוני|مليونا?ً?|ملايين|م[یي]ل[یي]ون|ملین|triệu",
    7: "crores?|cr|कर(?:ोड़|ोड़|ोड)|कोटी|কোটি|કરોડ|ਕਰੋੜ|கோடி|కోట్లు|కోటి|ಕೋಟಿ|കോടി|کروڑ",
    9: f"billions?|bn|milliarden?|mrd|mld|mia|milliard(?:s|er)?|milliárd|bilh(?:ão|ões)|miliard{_LATIN_ENDINGS}"
    f"|miliar|milijard[aei]?|miljard(?:er|ia?)?|milyar|bilyon|млрд|миллиард{_CYRILLIC_ENDINGS}|мільярд{_CYRILLIC_ENDINGS}"
    f"|милиард{_CYRILLIC_ENDINGS}|δισ|δισεκατομμύρι(?:ο|α)|מיליארד|अरब|مليارا?ً?|مليارات|م[یي]ل[یي]ارد|ارب|tỷ|tỉ",
    12: f"trillions?|tn|trn|billionen|billioner|biljo(?:en|ner)|billones|billón|bilioni|bilion(?:y|ów|ů)"
    f"|trilh(?:ão|ões)|triliun|trilyon|трлн|триллион{_CYRILLIC_ENDINGS}|трильйон{_CYRILLIC_ENDINGS}|تريليون|تر[یي]ل[یي]ون",
}
_LETTERS: Mapping[int, str] = {3: "k|K", 6: "M", 9: "B"}
_THAI: Mapping[int, str] = {3: "พัน(?!ธ)", 4: "หมื่น", 5: "แสน", 6: "ล้าน"}
_WORD = "|".join(
    (
        *(f"(?P<e{power}>(?i:{words}))(?![\\p{{L}}\\p{{M}}\\p{{N}}])" for power, words in _WORDS.items()),
        *(f"(?P<e{power}>{words})(?![\\p{{L}}\\p{{M}}\\p{{N}}])" for power, words in _LETTERS.items()),
        *(f"(?P<e{power}>{words})" for power, words in _THAI.items()),  # Thai has no spaces between words
    )
)
_POWERS = sorted({*_WORDS, *_LETTERS, *_THAI})
_SCALE = regex.compile(_WORD)

SCALES = rf"(?:{regex.sub(r'[(][?]P<e[0-9]+>', '(?:', _WORD)})"
"""A pattern of one of the words."""


def power_of_ten(words: str) -> int:
    """The power of ten that the words multiply by together.

    >>> power_of_ten("mil millones")
    9
    """
    return sum(_power(match) for match in _SCALE.finditer(words))


def _power(match: "regex.Match[str]") -> int:
    return next(power for power in _POWERS if match[f"e{power}"])
