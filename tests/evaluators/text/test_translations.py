"""The instructions of the rules, as a reviser of a Chinese request reads them."""

from collections.abc import Sequence

import pytest

from service.evaluators.base import Verifier
from service.evaluators.text.bounds import Bounds
from service.evaluators.text.format import Format
from service.evaluators.text.keywords import Keywords, OneOf
from service.evaluators.text.language import LANGUAGES, LANGUAGES_IN_CHINESE, Language
from service.evaluators.text.passages import EndsWith, ParagraphStarts, StartsWith


@pytest.mark.parametrize(
    ("rule", "instructions"),
    [
        (
            Keywords(
                include=("北京", "上海"),
                exclude=("广州",),
                counts={"模型": Bounds(min=2, max=2), "数据": Bounds(max=0)},
                letters={"的": Bounds(max=3)},
            ),
            [
                "请使用以下所有词语：“北京”、“上海”。",
                "请不要使用以下任何词语：“广州”。",
                "“模型”的出现次数：正好 2 次。",
                "请不要使用“数据”。",
                "字符“的”的出现次数：不超过 3 次。",
            ],
        ),
        (OneOf(options=("是", "否")), ["请只回答以下选项之一，不要写任何其他内容：“是”、“否”。"]),
        (OneOf(options=("是", "否"), anywhere=True), ["请原样使用以下选项之一：“是”、“否”。"]),
        (StartsWith(text="亲爱的"), ["请以“亲爱的”开头。"]),
        (EndsWith(text="谢谢"), ["请以“谢谢”结尾。"]),
        (EndsWith(text="甲" * 1001), [f"请以从“{'甲' * 60}”到“{'甲' * 60}”的全部原文结尾。"]),
        (ParagraphStarts(paragraph=2, text="首先"), ["第 2 段请以“首先”开头。"]),
        (Language(code="zh"), ["请用中文书写。"]),
        (Format(kind="bullet_list", min=2), ["请用项目符号列出至少 2 项，每项单独成行，以“- ”开头。"]),
        (Format(kind="bullet_list", marker="・"), ["请用项目符号列出至少 1 项，每项单独成行，以“・”开头。"]),
        (Format(kind="bullet_list", min=0, max=0), ["请不要使用项目符号。"]),
        (
            Format(kind="numbered_list", min=3, max=3),
            ["请用编号列出正好 3 项，每项单独成行，依次以“1. ”“2. ”等开头。"],
        ),
        (Format(kind="sections", min=2), ["请写至少 2 节，每节的标题单独成行，依次为“第1节”“第2节”等。"]),
        (
            Format(kind="sections", marker="Teil", max=3),
            ["请写 1 到 3 节，每节的标题单独成行，依次为“Teil 1”“Teil 2”等。"],
        ),
        (Format(kind="highlighted"), ["请用星号突出至少 1 处，例如 *这里*。"]),
        (Format(kind="placeholders", min=2), ["请使用至少 2 个方括号占位符，例如 [地址]。"]),
        (Format(kind="capital_words", max=0), ["请不要使用全大写的单词。"]),
        (Format(kind="postscript", marker="附："), ["请在文末加上以“附：”开头的附言。"]),
        (Format(kind="two_responses"), ["请给出两个不同的回答，中间用单独一行的六个星号“******”隔开。"]),
        (Format(kind="json"), ["请只回复 JSON，不要有任何其他文字。"]),
        (Format(kind="title"), ["请用双尖括号给全文加上标题，例如 <<一个好标题>>。"]),
        (Format(kind="single_line"), ["请把全部内容写在一行里。"]),
        (Format(kind="no_commas"), ["请不要使用任何逗号和顿号。"]),
        (Format(kind="lowercase"), ["请只使用小写字母，不要使用大写字母。"]),
        (Format(kind="uppercase"), ["请只使用大写字母。"]),
        (Format(kind="quoted"), ["请用双引号把全文括起来。"]),
    ],
    ids=str,
)
def test_an_instruction_is_said_in_chinese(rule: Verifier, instructions: Sequence[str]) -> None:
    for text in ("", "wrong, \nWRONG"):
        checks = rule.check(text)
        assert [check.instruction_in("zh") for check in checks] == instructions
        assert [check.instruction_in("fr") for check in checks] == [check.instruction for check in checks]


def test_every_language_has_a_chinese_name() -> None:
    assert LANGUAGES_IN_CHINESE.keys() == LANGUAGES.keys()
    assert len(set(LANGUAGES_IN_CHINESE.values())) == len(LANGUAGES)
