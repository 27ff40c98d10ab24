"""What counts as an answer of Consul's: text that can be used, to its last character."""

from __future__ import annotations

import json

import pytest

from meshlib.sources.consul.client import Answer, Unanswered


@pytest.mark.parametrize(
    "content",
    [rb'{"Meta": {"a": "\ud800"}}', rb'{"\uDFff": 1}', b'["\xed\xa0\x80"]', b'["\xff"]', b"[", b"[" * 100_000],
)
def test_half_a_character_is_no_answer_as_broken_json_is_none(content: bytes) -> None:
    """It could not be sent, hashed or looked for: one service would hold back the news of all others."""
    with pytest.raises(Unanswered, match="the answer is not JSON"):
        Answer(content, 1).json()


@pytest.mark.parametrize("text", ["\N{GRINNING FACE}", "\N{LATIN SMALL LETTER E WITH ACUTE}", "\\ud800", "\ud7ff"])
def test_whole_characters_are(text: str) -> None:
    for escaped in (True, False):
        assert Answer(json.dumps([text], ensure_ascii=escaped).encode(), 1).json() == [text]
