"""The example of handwritten digits: that it learns, and that it says when it does not."""

import copy
import io

import pytest
import torch
from pictures import assert_is_picture
from rich.console import Console

from examples.digits import training
from examples.digits.__main__ import main
from examples.digits.network import SparseNetwork
from examples.threads import one_thread


def test_digits_are_learned_by_sparse_weights(run_quickly):
    folder, _ = run_quickly("digits")
    assert_is_picture(folder / "digits_loss.png")
    assert_is_picture(folder / "digits_patterns.png")
    assert_is_picture(folder / "digits_densities.png")


def test_digits_fail_without_enough_training(tmp_path, monkeypatch):
    monkeypatch.setattr(training.figures, "save_patterns", lambda *_: None)
    with pytest.raises(SystemExit, match="95%"):
        training.run(Console(file=io.StringIO()), tmp_path, epochs=1)


def test_training_keeps_the_patterns_and_changes_the_values():
    generator = torch.Generator().manual_seed(0)
    network = SparseNetwork(training.LAYERS, generator)
    before = copy.deepcopy(network.sparse_layers())
    with one_thread():
        list(training.train(network, training.load(), 1, generator))
    after = network.sparse_layers()
    assert len(after) == len(training.LAYERS)
    for old, new, (outputs, _, fan_in) in zip(before, after, training.LAYERS, strict=True):
        assert new.sparsity >= 0.95
        assert new.crow_indices.diff().tolist() == outputs * [fan_in]
        for name, buffer in old.named_buffers():
            assert torch.equal(buffer, new.get_buffer(name))
        assert not torch.equal(old.weight, new.weight)


def test_output_folder_that_cannot_exist_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="cannot make the folder"):
        main(["--output", str(tmp_path / "file" / "folder")])


def test_regrown_patterns_read_more_digits_with_as_few_weights():
    data, accuracies = training.load(), {}
    for regrow in (False, True):
        generator = torch.Generator().manual_seed(0)
        layers = [(outputs, inputs, 0.01 * inputs) for outputs, inputs, _ in training.LAYERS]
        network = SparseNetwork(layers, generator)
        before = [layer.mask for layer in network.sparse_layers()]
        with one_thread():
            list(training.train(network, data, 8, generator, regrow=regrow))
        after = [layer.mask for layer in network.sparse_layers()]
        for old, new in zip(before, after, strict=True):
            assert old.sum() == new.sum()
            assert torch.equal(old, new) != regrow
        accuracies[regrow] = training.accuracy(network, data.test_images, data.test_labels)
    # 0.62 and 0.94 measured.
    assert accuracies[True] > accuracies[False] + 0.1
