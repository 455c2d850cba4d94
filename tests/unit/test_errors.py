"""Messages that are too long keep their beginning and their end."""

from harness.errors import shorten


def test_a_long_message_keeps_what_to_do():
    """Cut at its end, transformers' message lost `attn_implementation="eager"`, which is what to do."""
    message = (
        f'SomeModel does not support sdpa yet. {"Please request it. " * 30}load it with attn_implementation="eager"'
    )
    short = shorten(message, 300)
    assert len(short) == 300
    assert short.startswith("SomeModel does not support sdpa yet.")
    assert short.endswith('load it with attn_implementation="eager"')


def test_a_short_message_is_kept():
    assert shorten("x" * 300, 300) == "x" * 300
