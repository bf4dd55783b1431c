import cv2
import pytest

from yolo_lt import config
from yolo_lt.balance.plan import make_plan
from yolo_lt.dataset import ClassStats
from yolo_lt.report.charts import rank
from yolo_lt.report.drawing import save_png


@pytest.mark.parametrize("lists", [[[0]] * 50 + [[1]] * 9 + [[2]], [[0], [1]], [[0]] * 3], ids=["tail", "even", "one"])
@pytest.mark.parametrize("recipe", ["rfs", "baseline"])
def test_the_rank_plot_is_a_picture_with_something_on_it(tmp_path, lists, recipe):
    plan = make_plan(ClassStats.from_lists(lists, 4), config.resolve({"recipe": recipe}))
    image = cv2.imread(str(save_png(tmp_path, rank(plan))))
    assert image.shape[1] > 800
    assert (image < 250).any(axis=2).mean() > 0.01
    assert [p.name for p in tmp_path.iterdir()] == ["class_rank.png"]
