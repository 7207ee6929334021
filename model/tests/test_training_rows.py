"""What training reads: labelled lines, attacked twins, and no row that is tested on. No torch is needed for these."""

import json
import random

import pytest

from moderato_train import attacks, rows

LABELS = ["no", "yes"]


def written(tmp_path, *lines):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return str(path)


def test_lines_become_examples_with_their_evidence(tmp_path):
    path = written(
        tmp_path,
        {"text": "a", "label": "yes", "evidence": "said so"},
        {"text": "b", "label": "no", "evidence": [{"id": "e7", "quote": "q", "url": "u"}]},
        {"text": " ", "label": "no"},
    )
    examples = rows.read(path, LABELS, random.Random(0))
    assert [(e.text, e.label, e.evidence) for e in examples] == [
        ("a", 1, [{"id": "e1", "quote": "said so"}]),
        ("b", 0, [{"id": "e7", "quote": "q"}]),
    ]


@pytest.mark.parametrize("line", ["{", '{"text": "a"}', '{"text": "a", "label": "maybe"}', "[1]"])
def test_a_bad_line_is_told_with_its_number(tmp_path, line):
    with pytest.raises(rows.DataError, match="line 2"):
        rows.read(written(tmp_path, {"text": "a", "label": "yes"}, line), LABELS, random.Random(0))


def test_a_source_can_be_left_out_and_a_share_taken(tmp_path):
    lines = [{"text": str(n), "label": "no", "source": "odd" if n % 2 else "even"} for n in range(1000)]
    path = written(tmp_path, *lines)
    assert {int(e.text) % 2 for e in rows.read(path, LABELS, random.Random(0), ("odd",))} == {0}
    assert 400 < len(rows.read(f"{path}@0.5", LABELS, random.Random(0))) < 600


def test_a_family_of_attacks_can_be_left_out_of_a_file(tmp_path):
    lines = [{"text": family, "label": "no", "attack": family} for family in ("roleplay", "encoded")]
    kept = rows.read(written(tmp_path, *lines), LABELS, random.Random(0), ("roleplay",))
    assert [example.text for example in kept] == ["encoded"]


def test_an_at_sign_may_stand_in_a_name():
    assert rows.split("a@b.jsonl") == ("a@b.jsonl", 1.0)
    assert rows.split("a@b.jsonl@0.25") == ("a@b.jsonl", 0.25)
    assert rows.split("c.jsonl") == ("c.jsonl", 1.0)


def test_what_is_tested_on_is_not_trained_on_whatever_its_links_and_marks():
    examples = [rows.Example(text, 0) for text in ("One, two!", "one two https://t.co/x", "three @me", "four")]
    kept = rows.without(examples, {rows.plain("Three!")})
    assert [example.text for example in kept] == ["One, two!", "four"]


@pytest.mark.parametrize("family", attacks.FAMILIES)
def test_every_attack_changes_the_text_and_a_seed_repeats_it(family):
    text = "The station on Hill Street opens again on Monday after the repairs"
    made = [attacks.attack(text, ["false", "true"], "true", family, random.Random(3)) for _ in range(2)]
    assert made[0] == made[1] != text


def test_varied_examples_keep_label_and_evidence():
    examples = [rows.Example(f"Text {n}.", n % 2, [{"id": "e1", "quote": "q"}]) for n in range(200)]
    out = rows.varied(examples, ["false", "true"], list(attacks.FAMILIES), 0.5, random.Random(1))
    assert [(e.label, e.evidence) for e in out] == [(e.label, e.evidence) for e in examples]
    assert sum(a.text != b.text for a, b in zip(examples, out)) > 90


def test_a_note_that_cites_nothing_cites_all_its_evidence(tmp_path):
    both = [{"id": "e1", "quote": "q"}, {"id": "e2", "quote": "r"}]
    path = written(
        tmp_path,
        {"text": "t", "label": "yes", "evidence": both, "note": "It is so."},
        {"text": "t", "label": "yes", "evidence": "q", "note": "As [e1] says, it is so."},
    )
    notes = [drafted.note for drafted in rows.read_notes(path, random.Random(0))]
    assert notes == ["It is so [e1, e2].", "As [e1] says, it is so."]
    with pytest.raises(rows.DataError, match="line 1"):
        rows.read_notes(written(tmp_path, {"text": "t", "label": "yes", "evidence": "q"}), random.Random(0))
