"""The verdict in plain sentences, and the alternatives beside the choice."""

from __future__ import annotations

from harness.decision.choice import Goal, choose
from harness.report.formatting import USD, percent
from harness.report.sections.plain_verdict import HEADS, MAX_ALTERNATIVES, alternatives, plain_sentences
from tests.make_priced import STATED, baseline, fine_tune, priced, study_records


def text_of(cells, goal=None):
    return " ".join(plain_sentences(cells, choose(cells, goal=goal), USD))


def test_what_to_use_what_it_costs_and_how_sure_that_is():
    cells = priced(study_records())
    way = choose(cells).way
    text = text_of(cells)
    assert text.startswith(
        "Measure more before you decide. So far the choice is batch 16, 64 tokens in fp32 on AMD EPYC 7763 (2 CPUs)."
    )
    assert f"One training costs about {USD.prose(way.usd.value)} on the bill" in text
    assert f"It labels {percent(way.score.value)} of texts right" in text
    assert "1,000 test texts, 1 run" in text
    assert "more than counting words" in text
    assert "Next: measure the model without training" in text


def test_an_assumed_price_is_an_example_and_a_stated_one_is_not():
    example = text_of(priced([fine_tune()]))
    assert "on AMD EPYC 7763 (2 CPUs). The price of this machine is not known: enter yours." in example
    assert "An example price stands in ($0.192 an hour, m5.xlarge in us-east-1, price of July 2026)." in example
    assert " on m5.xlarge ($0.192 an hour in us-east-1, price of July 2026)." in text_of(priced([fine_tune()], STATED))


def test_nothing_to_use_yet():
    assert text_of(priced([fine_tune(accuracy=0.56)])).startswith("Do not use any of these yet.")
    missed = text_of(priced([fine_tune(accuracy=0.80)]), Goal(target=0.9))
    assert "Nothing gets 90.0% right: the best gets 80.0%." in missed


def test_an_amount_in_prose_has_two_digits():
    assert [USD.prose(usd) for usd in (None, 0.00830, 0.0207, 1.234, 203.0, 0.0, -0.0207)] == [
        "not measured", "$0.0083", "$0.021", "$1.2", "$200", "$0", "-$0.021",
    ]  # fmt: skip


def test_the_alternatives_have_the_baselines_as_rows():
    cells = priced(study_records())
    choice = choose(cells)
    table = alternatives(cells, choice, USD)
    assert table.heads == HEADS
    assert len(table.rows) <= MAX_ALTERNATIVES
    names = [row[0].text for row in table.rows]
    assert names[0] == "batch 16, 64 tokens in fp32"
    assert names[-2:] == ["counting words", "always the most common answer"]
    rows = {row[0].text: row for row in table.rows}
    difference = choice.difference(next(way for way in choice.ways if way.kind == "tfidf"))
    assert rows["counting words"][-1].text == f"{-100 * difference.value:+.1f}"
    assert rows["always the most common answer"][2].text == "nothing"
    assert rows[names[0]][-1].text == "the choice"
    assert not alternatives([], choose([]), USD)


def test_a_baseline_may_be_the_choice():
    cells = priced([fine_tune(accuracy=0.70), baseline("tfidf", 0.697)])
    assert "So far the choice is counting words on AMD EPYC 7763 (2 CPUs)." in text_of(cells)
