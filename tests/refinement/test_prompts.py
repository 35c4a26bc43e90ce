import pytest

from service.refinement.prompts import VARIABLES, PromptError, Prompts

SOURCES = {name: " ".join(f"{{{{ {variable} }}}}" for variable in sorted(of)) for name, of in VARIABLES.items()}
HOSTILE = "{{ fence }} {% for x in y %} {# comment #} <b>&amp;</b>"


def test_every_template_may_use_all_of_its_variables() -> None:
    prompts = Prompts.compile(SOURCES)

    for name, variables in VARIABLES.items():
        assert prompts.render(name, **dict.fromkeys(variables, "x")) == " ".join("x" for _ in variables)


@pytest.mark.parametrize("name", VARIABLES)
def test_a_missing_template_is_named(name: str) -> None:
    with pytest.raises(PromptError, match=rf"\b{name}\b"):
        Prompts.compile({key: source for key, source in SOURCES.items() if key != name})


def test_an_unknown_template_is_named() -> None:
    with pytest.raises(PromptError, match="greeting"):
        Prompts.compile({**SOURCES, "greeting": "Hello."})


@pytest.mark.parametrize("name", VARIABLES)
def test_an_unknown_variable_is_named_with_its_template(name: str) -> None:
    with pytest.raises(PromptError, match=rf"'{name}'.*\bnonsense\b"):
        Prompts.compile({**SOURCES, name: "{{ nonsense }}"})


def test_a_variable_of_another_template_is_unknown() -> None:
    with pytest.raises(PromptError, match="candidate"):
        Prompts.compile({**SOURCES, "critique": "{{ candidate }}"})


@pytest.mark.parametrize("source", ["{{", "{% if %}", "{% for x in issues %}", "{{ issues | nonsense }}"])
def test_a_template_that_does_not_compile_is_refused(source: str) -> None:
    with pytest.raises(PromptError, match="does not compile"):
        Prompts.compile({**SOURCES, "critique": source})


def test_a_value_is_inserted_and_never_rendered() -> None:
    prompts = Prompts.compile({**SOURCES, "show": "{{ fence }}|{{ candidate }}", "critique": "{{ issues | join }}"})

    assert prompts.render("show", fence="F", candidate=HOSTILE) == f"F|{HOSTILE}"
    assert prompts.render("critique", issues=(HOSTILE,), principles=()) == HOSTILE


def test_a_draft_that_needs_choices_where_there_may_be_none_is_refused() -> None:
    with pytest.raises(PromptError, match="'draft' cannot be rendered"):
        Prompts.compile({**SOURCES, "draft": "{{ choices[0] }}"})


@pytest.mark.parametrize(
    "source",
    [
        "{{ prompt.__class__.__mro__ }}",
        "{{ prompt.__init__.__globals__ }}",
        "{{ parameters.update({'x': 1}) }}",
    ],
)
def test_a_template_reaches_nothing_but_its_values(source: str) -> None:
    with pytest.raises(PromptError, match="unsafe"):
        Prompts.compile({**SOURCES, "draft": source})


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}{% endfor %}", "2 deep"),
        ("{% for a in (1, 2) recursive %}{{ loop((1, 2)) }}", "2 deep"),
        ("{{ range(1001) }}", "at most 1000"),
        ("{{ prompt * 1000000000 }}", "products and remainders of numbers"),
        ("{{ [prompt] * 1000000000 }}", "products and remainders of numbers"),
        ("{{ 10 ** 1000000000 }}", "products and remainders of numbers"),
        ("{{ '%1000000000d' % 1 }}", "products and remainders of numbers"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{% import 'x' as x %}", "no other templates"),
        ("{% extends 'x' %}", "no other templates"),
    ],
)
def test_a_template_is_bounded(source: str, reason: str) -> None:
    ends = "{% endfor %}" * (source.count("{% for") - source.count("{% endfor"))
    with pytest.raises(PromptError, match=reason):
        Prompts.compile({**SOURCES, "draft": source + ends})


def test_numbers_may_be_multiplied() -> None:
    prompts = Prompts.compile({**SOURCES, "draft": "{{ 2 * 3 }} {{ 7 % 4 }} {{ range(2) | join }}"})

    assert prompts.render("draft", prompt="", parameters={}, choices=()) == "6 3 01"


def test_parameters_that_are_declared_may_be_used_by_any_way() -> None:
    loop = "{% for name, value in parameters.items() %}{{ value }}{% endfor %}"
    source = f"{{{{ parameters.a }}}}{{{{ parameters['b'] }}}}{{{{ parameters.get('c') }}}}{loop}"
    prompts = Prompts.compile({**SOURCES, "draft": source}, ("a", "b", "c"))

    assert prompts.parameters == {"a", "b", "c"}
    with pytest.raises(PromptError, match="undeclared parameters: b, c"):
        Prompts.compile({**SOURCES, "draft": source}, ("a",))
