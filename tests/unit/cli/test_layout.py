"""Text and tables in lines: broken between words, and never within a word or figure."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from harness.cli.console import SafeConsole, print_facts, print_table, print_text
from harness.cli.layout import columns, fact_lines, table_lines, wrap

WORDS = st.lists(st.text(st.sampled_from("abc0.,-"), min_size=1, max_size=12), min_size=1, max_size=12)


def plain(lines):
    return [line.plain for line in lines]


@given(words=WORDS, width=st.integers(4, 40), hang=st.integers(0, 3))
def test_wrapped_text_has_the_same_words_in_lines_that_fit_or_are_one_word(words, width, hang):
    lines = plain(wrap(Text(" ".join(words)), width, hang))
    assert " ".join(lines).split() == words
    assert all(len(line) <= width or len(line.split()) == 1 for line in lines)
    assert all(len(line) - len(line.lstrip()) == hang for line in lines[1:])


def test_wrapping_keeps_indents_line_breaks_and_styles_and_hangs_continuation_lines():
    text = Text.assemble("  one ", ("two", "red"), " three\nfour")
    lines = wrap(text, 9, 2)
    assert plain(lines) == ["  one two", "    three", "four"]
    assert [(span.start, span.end, span.style) for span in lines[0].spans] == [(6, 9, "red")]


def test_columns_stand_side_by_side_and_texts_are_broken_between_words():
    names = columns(["cell"], ["samples/s"], ["state"])
    rows = [("b8", "9.5", "to do"), ("b16-s64", "1,234.5", "unsupported: no GPU")]
    assert plain(table_lines(names, rows, None)) == [
        "cell     samples/s  state",
        "b8             9.5  to do",
        "b16-s64    1,234.5  unsupported: no GPU",
    ]
    assert plain(table_lines(names, rows, 34))[2:] == ["b16-s64    1,234.5  unsupported:", "                    no GPU"]


def test_a_name_that_takes_too_much_room_gets_a_line_of_its_own():
    lines = plain(table_lines(columns(["cell"], ["peak MiB", "USD"]), [("b16-s64-fp32-cpu", "12,345", "0.0012")], 24))
    assert lines[0] == "cell"
    assert lines[-2:] == ["b16-s64-fp32-cpu", "    12,345  0.0012"]


def test_figures_that_don_t_fit_side_by_side_follow_each_other_with_their_names():
    names = columns(["cell"], ["samples/s", "peak MiB", "accuracy"])
    assert plain(table_lines(names, [("b16", "1,234.5", "12,345", "0.801"), ("b32", "", "1", "")], 22)) == [
        *("b16", "  samples/s 1,234.5", "  peak MiB 12,345", "  accuracy 0.801"),
        *("b32", "  peak MiB 1"),
    ]


@given(rows=st.lists(st.tuples(WORDS, st.integers(0, 10**9), WORDS), min_size=1, max_size=4), width=st.integers(12, 60))
def test_no_table_cuts_a_word_or_a_figure(rows, width):
    cells = [(Text(" ".join(name)), f"{figure:,}", Text(" ".join(state))) for name, figure, state in rows]
    lines = plain(table_lines(columns(["cell"], ["figure"], ["state"]), cells, width))
    shown = " ".join(lines).split()
    expected = [word for name, figure, state in rows for word in (*name, f"{figure:,}", *state)]
    assert all(shown.count(word) >= expected.count(word) for word in expected)
    assert all(len(line) <= width or len(line.split()) == 1 for line in lines)


def test_facts_are_aligned_and_a_long_path_begins_a_line():
    facts = [("record", "a/path/of/thirty/characters/x"), ("when", "today or tomorrow"), ("GPUs", "one\ntwo")]
    assert plain(fact_lines(facts, 20)) == [
        *("record", "a/path/of/thirty/characters/x"),
        *("when    today or", "        tomorrow"),
        *("GPUs    one", "        two"),
    ]
    assert plain(fact_lines(facts, None))[0] == "record  a/path/of/thirty/characters/x"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_only_a_terminal_gets_broken_lines(is_terminal):
    console = SafeConsole(file=io.StringIO(), force_terminal=is_terminal, width=20, color_system=None)
    print_text(console, "one two three four five six")
    print_table(console, columns(["name", "meaning"]), [("a", "one two three four five six")])
    print_facts(console, [("name", "one two three four five six")])
    lines = console.file.getvalue().splitlines()
    assert (len(lines) == 4) is not is_terminal
    assert all(len(line) <= 20 for line in lines) is is_terminal


def test_text_of_others_keeps_its_colons_and_brackets():
    console = SafeConsole(file=io.StringIO(), width=80)
    print_text(console, r"a :bug: in \[red]")
    print_table(console, columns(["a"]), [(Text("[red]:bug:"),)])
    assert console.file.getvalue() == "a :bug: in [red]\na\n[red]:bug:\n"
