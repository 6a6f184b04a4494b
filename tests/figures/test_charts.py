import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from cortexgen.errors import UserError
from cortexgen.figures import to_png, training_curves, volume_distributions
from cortexgen.figures.axes import GREY
from cortexgen.figures.charts import class_distributions, read_metrics
from cortexgen.figures.colours import REAL

HEADER = "epoch,lr-Adam,step,train/loss_epoch,train/loss_step,val/dice,val/loss\n"


def _write(path, steps, loss):
    rows = [f"{s // 10},,{s},,{loss},," for s in steps] + [f"0,,{steps[-1]},{loss},,0.8,nan"]
    path.write_text(HEADER + "\n".join(rows) + f"\n,0.001,{steps[-1]},,,,\n")
    return path


def test_curves_of_one_file(tmp_path):
    path = _write(tmp_path / "metrics.csv", range(0, 50, 5), 2.0)
    curves, resumed = read_metrics(path)
    assert resumed == [] and set(curves) == {"lr-Adam", "train/loss_epoch", "train/loss_step", "val/dice"}
    assert np.array_equal(curves["train/loss_step"][0], range(0, 50, 5))
    figure = training_curves(path)
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles == ["loss", "dice", "lr-Adam"]
    assert len(figure.axes[0].lines[0].get_xdata()) == 10


def test_curves_of_a_resumed_run(tmp_path):
    parts = [_write(tmp_path / "1.csv", [*range(0, 50, 5), 47], 2.0), _write(tmp_path / "2.csv", range(30, 80, 5), 1.0)]
    curves, resumed = read_metrics(parts)
    steps, values = curves["train/loss_step"]
    assert resumed == [30] and np.array_equal(steps, range(0, 80, 5))
    assert np.array_equal(values, np.where(steps < 30, 2.0, 1.0))
    assert to_png(training_curves(parts, title="run"), 40).startswith(b"\x89PNG")


def test_long_curves_are_smoothed(tmp_path):
    path = _write(tmp_path / "metrics.csv", range(500), 1.0)
    assert len(training_curves(path).axes[0].lines) == 2


@pytest.mark.parametrize("content", [None, "", HEADER, "a,b\n1,2\n", "epoch,step\n0,1\n"])
def test_curves_say_what_is_wrong(tmp_path, content):
    path = tmp_path / "metrics.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"metrics\.csv"):
        training_curves(path)


def test_volumes_are_relative_to_the_real_mean():
    real = torch.tensor([[900.0, 10.0], [1100.0, 30.0]])
    figure = volume_distributions(["White-Matter", "Ventricle"], real, torch.tensor([[1500.0, 20.0]]))
    (axes,) = figure.axes
    points = [np.sort(c.get_offsets()[:, 0]) for c in axes.collections]
    for found, expected in zip(points, ([0.9, 1.1], [1.5], [0.5, 1.5], [1.0]), strict=True):
        assert np.allclose(found, expected)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["White Matter", "Ventricle"]
    assert axes.yaxis_inverted()
    figure.canvas.draw()
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert "0%" in ticks and "−20%" in ticks and "+25%" in ticks


def test_volumes_of_seventeen_regions_with_gaps():
    real = torch.rand(12, 17) + 1
    real[:, 3] = 0
    assert to_png(volume_distributions([f"Region-{k}" for k in range(17)], real, torch.rand(5, 17)), 40)
    with pytest.raises(ValueError, match="expected volumes"):
        volume_distributions(["a"], real, real)
    with pytest.raises(ValueError, match="expected volumes"):
        volume_distributions(["a"], real[:, :1], real[:0, :1])


def test_box_of_each_class_and_method():
    values = {
        "nothing": torch.tensor([[0.1, 0.5], [0.2, torch.nan], [0.3, 0.7]]),
        "ours": torch.tensor([[0.8, torch.nan], [0.9, torch.nan], [1.0, torch.nan]]),
    }
    (axes,) = class_distributions(["a", "Left-b"], values, "Dice", True, "nothing").axes
    points = [collection.get_offsets().data for collection in axes.collections]
    assert [sorted(p[:, 0].round(3).tolist()) for p in points] == [[0.1, 0.2, 0.3], [0.8, 0.9, 1.0], [0.5, 0.7], []]
    colours = [to_hex(c.get_facecolor()[0]) for c in axes.collections if len(c.get_offsets())]
    assert colours == [GREY, REAL, GREY]
    assert [round(float(p[:, 1].mean())) for p in points[:3]] == [0, 0, 1]  # the class's line
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "Left b"] and axes.get_xlim() == (0, 1)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first class on top
    (legend,) = axes.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["nothing (n = 3)", "ours (n = 3)"]


def test_distances_are_not_cut_off():
    (axes,) = class_distributions(["a"], {"ours": torch.tensor([[2.0], [17.0]])}, "HD95", False).axes
    assert axes.get_xlim()[0] == 0 and axes.get_xlim()[1] > 17


def test_values_of_other_classes_are_refused():
    with pytest.raises(ValueError, match=r"ours: expected values \[N, 2\], got \(3, 1\)"):
        class_distributions(["a", "b"], {"ours": torch.zeros(3, 1)}, "Dice", True)
