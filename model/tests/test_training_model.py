"""The model that is trained is the model that is exported. These want torch, which the other tests do not."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from moderato_model.checkpoint import expected_tensors
from moderato_model.errors import ExportError
from moderato_model.lora import merged
from moderato_train import adapter
from moderato_train.llama import Llama, Lora
from moderato_train.objectives import Labels, Notes, Rows, padded
from moderato_train.train import Schedule, Trainer
from reference import Llama as Reference

RANDOM = np.random.RandomState(4)
PROMPT = RANDOM.randint(3, 500, 11).tolist()
ROWS = [RANDOM.randint(3, 500, length).tolist() for length in (7, 1, 12)]


def trained(tiny):
    """An adapter whose every matrix matters."""
    model = Llama(tiny, Lora(rank=2, alpha=4, first_layer=1, dropout=0.0), seed=1, compiled=False)
    random = torch.Generator().manual_seed(2)
    for weight in model.trainable.values():
        weight.data = torch.randn(weight.shape, generator=random) * 0.1
    return model


def logits(model):
    ids, width = padded(ROWS, "cpu")
    last = torch.tensor([at * width + len(row) - 1 for at, row in enumerate(ROWS)])
    with torch.no_grad():
        return model.logits(model.states(torch.tensor(PROMPT), ids, last)).numpy()


def expected(checkpoint):
    reference = Reference(checkpoint.config, {name: checkpoint.read(name) for name in expected_tensors(checkpoint.shape)})
    return np.stack([reference.logits(PROMPT + row)[-1] for row in ROWS])


def test_rows_behind_a_shared_prompt_have_the_logits_of_the_equations(tiny):
    model = Llama(tiny, Lora(rank=2, alpha=4, first_layer=0, dropout=0.0), seed=1, compiled=False)
    assert np.abs(logits(model) - expected(tiny)).max() < 1e-4


def test_an_adapter_that_is_saved_and_merged_gives_the_logits_that_were_trained(tiny, tmp_path):
    model = trained(tiny)
    adapter.save(model, tmp_path / "a", tiny.name, {"base": tiny.name})
    assert np.abs(logits(model) - expected(tiny)).max() > 0.1
    assert np.abs(logits(model) - expected(merged(tiny, tmp_path / "a"))).max() < 2e-2


def test_training_can_begin_with_an_adapter_of_the_same_form_and_no_other(tiny, tmp_path):
    before = trained(tiny)
    adapter.save(before, tmp_path / "a", tiny.name, {"rows": 3})

    def begin(rank):
        model = Llama(tiny, Lora(rank=rank, alpha=2 * rank, first_layer=1, dropout=0.0), seed=9, compiled=False)
        return model, adapter.load(model, tmp_path / "a")

    model, card = begin(rank=2)
    assert np.abs(logits(model) - logits(before)).max() < 2e-2
    assert card["rows"] == 3
    with pytest.raises(ExportError, match="r 2, lora_alpha 4, layers 1 and up.*--rank 4"):
        begin(rank=4)
    (tmp_path / "a" / "adapter_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ExportError, match="no adapter to begin with"):
        begin(rank=2)


def test_training_learns_and_a_seed_repeats_it(tiny, tmp_path):
    rows = Rows([[5, 6, 7 + n % 2] for n in range(64)], [n % 2 for n in range(64)])
    schedule = Schedule(batch=8, tokens=64, learning_rate=1e-2, weight_decay=0.0, warm_up=0.1, seed=3)

    def run(name):
        model = Llama(tiny, Lora(rank=2, alpha=4, first_layer=0, dropout=0.0), seed=1, compiled=False)
        labels = Labels([263, 270], np.array([0.5, 0.5]), 1.0, 0.0, "cpu")
        trainer = Trainer(model, labels, [PROMPT], schedule, "cpu")
        before = labels.check(model, rows, torch.tensor(PROMPT))["loss"]
        trainer.run([rows] * 3, rows, tmp_path / name, {"base": "tiny"}, lambda line: None)
        return before, labels.check(model, rows, torch.tensor(PROMPT))["loss"]

    before, after = run("a")
    assert after < before / 2
    run("b")
    files = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in "ab"]
    assert files[0] == files[1]


def test_what_is_learned_keeps_the_probability_on_the_labels(tiny, tmp_path):
    rows = Rows([[5, 6, 7 + n % 2] for n in range(64)], [n % 2 for n in range(64)])
    model = Llama(tiny, Lora(rank=2, alpha=4, first_layer=0, dropout=0.0), seed=1, compiled=False)
    tokens = [263, 270]

    def inside():
        with torch.no_grad():
            states = model.states(torch.tensor(PROMPT), torch.tensor(rows.ids[:2]), torch.tensor([2, 5]))
            return model.logits(states).softmax(-1)[:, tokens].sum(-1).min().item()

    before = inside()
    schedule = Schedule(batch=8, tokens=64, learning_rate=1e-2, weight_decay=0.0, warm_up=0.1, seed=3)
    trainer = Trainer(model, Labels(tokens, np.array([0.5, 0.5]), 1.0, 0.0, "cpu"), [PROMPT], schedule, "cpu")
    trainer.run([rows] * 6, rows, tmp_path / "a", {"base": "tiny"}, lambda line: None)
    assert before < 0.1 < 0.8 < inside()


def test_only_the_words_of_a_note_are_learned(tiny):
    model = trained(tiny)
    rows = Rows(ROWS, [2, 1, 3])
    loss = Notes("cpu").loss(model, rows, [0, 2], torch.tensor(PROMPT)).item()
    ids, width = padded([ROWS[0], ROWS[2]], "cpu")
    with torch.no_grad():
        everywhere = model.logits(model.states(torch.tensor(PROMPT), ids, torch.arange(2 * width)))
    chances = torch.log_softmax(everywhere, -1)
    wanted = [(0, 5), (0, 6), (1, 9), (1, 10), (1, 11)]
    both = [ROWS[0], ROWS[2]]
    assert loss == pytest.approx(-np.mean([chances[row * width + at - 1, both[row][at]].item() for row, at in wanted]), abs=1e-4)
