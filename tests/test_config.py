import pytest

from yolo_lt import config
from yolo_lt.balance.losses import LOSSES
from yolo_lt.balance.losses.class_balanced import FORMS
from yolo_lt.balance.sampling import ROUNDINGS, SAMPLERS
from yolo_lt.calibrate import CALIBRATORS
from yolo_lt.dataset.convert.links import LINKS
from yolo_lt.dataset.subset.longtail import PROFILES
from yolo_lt.errors import LTError, UsageError
from yolo_lt.evaluate.protocols import PROTOCOLS
from yolo_lt.ultra.epochs import SELECTIONS


@pytest.mark.parametrize(
    ("key", "functions"),
    [
        ("sampler", SAMPLERS),
        ("rounding", ROUNDINGS),
        ("cls_loss", LOSSES),
        ("cb_form", FORMS),
        ("protocol", PROTOCOLS),
        ("method", CALIBRATORS),
        ("select", ["map", *SELECTIONS]),
        ("tail_profile", [*PROFILES, "coco-lt"]),
        ("link", LINKS),
    ],
)
def test_choices_in_the_yaml_are_the_functions_that_exist(key, functions):
    assert config.keys()[key].choices == list(functions)


def test_variants_in_the_yaml_are_those_of_the_samplers():
    variants = [v for of_one in SAMPLERS.values() for v in of_one if v]
    assert config.keys()["sampler_variant"].choices == ["auto", *variants]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"recipe": "baseline", "repeat_thr": 0.1}, "repeat_thr acts only with sampler=rfs or sampler=irfs"),
        ({"sampler": "class_aware", "repeat_thr": 0.1}, "repeat_thr acts only with"),
        ({"sampler": "inverse", "rounding": "ceil"}, "rounding acts only with"),
        ({"sampler": "none", "repeat_cap": 3.0}, "repeat_cap acts only with"),
        ({"sampler": "rfs", "eirfs_alpha": 1.0}, "eirfs_alpha acts only with sampler=eirfs"),
        ({"sampler": "none", "sampler_variant": "linear"}, "sampler_variant acts only with"),
        ({"cb_beta": 0.9}, "cb_beta acts only with cls_loss=cb or box_weight=cb"),
        ({"weight_cap": 3.0, "cls_loss": "eqlv2"}, "weight_cap acts only with cls_loss=cb or cls_loss=inverse or box_"),
        ({"federated_classes": 9}, "federated_classes acts only with cls_loss=federated or unknown_negatives=sampled"),
        ({"margin_reference": "none", "cls_loss": "loce"}, "margin_reference acts only with cls_loss=logit_adjusted"),
        ({"unknown_negatives": 0.1, "recipe": "baseline"}, "unknown_negatives acts only with federated"),
        ({"loss_gain": 2.0, "box_weight": "cb"}, "loss_gain acts only with cls_loss=cb"),
        ({"paste_memory": 9.0}, "paste_memory acts only with tail_paste"),
    ],
)
def test_a_key_that_could_not_act_is_refused(given, message):
    with pytest.raises(UsageError, match=message):
        config.check_acting(given, config.resolve(given))


def test_keys_that_act_and_auto_are_accepted():
    for given in (
        {"sampler": "irfs", "repeat_thr": 0.1, "repeat_cap": 4.0, "rounding": "floor"},
        {"sampler": "class_aware", "repeat_thr": "auto", "sampler_variant": "auto"},
        {"tail_paste": 0.3, "paste_memory": 9.0},
    ):
        assert config.check_acting(given, config.resolve(given)) is None


def test_recipes_in_the_yaml_are_the_files_that_exist():
    from importlib.resources import files

    names = {f.name.removesuffix(".yaml") for f in files("yolo_lt.cfg.recipes").iterdir() if f.name.endswith(".yaml")}
    assert set(config.keys()["recipe"].choices) == names
    for name in names:
        assert config.load_recipe(name)


def test_no_key_of_ours_is_ultralytics_own():
    assert not set(config.keys()) & set(config.ultralytics_defaults())


def test_every_line_of_the_yaml_is_read():
    from importlib.resources import files

    text = files("yolo_lt.cfg").joinpath("default.yaml").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert [line.split(":")[0] for line in lines] == list(config.keys())


def test_every_default_is_of_its_own_kind():
    for key in config.keys().values():
        assert config.check(key.name, key.default) == key.default


def test_given_beats_recipe_beats_default():
    lt = config.resolve({"recipe": "cb", "cb_beta": 0.9})
    assert (lt["cls_loss"], lt["cb_beta"], lt["sampler"], lt["repeat_thr"]) == ("cb", 0.9, "none", "auto")
    assert config.resolve({})["recipe"] == "recommended"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("repeat_thr", "auto", "auto"),
        ("repeat_thr", 0.5, 0.5),
        ("repeat_thr", 1, 1.0),
        ("bins", (10, 100), [10, 100]),
        ("bins", "my.yaml", "my.yaml"),
        ("sampler", None, "none"),
        ("bootstrap", 0, 0),
        ("debug", 1, True),
    ],
)
def test_accepted(key, value, expected):
    assert config.check(key, value) == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("repeat_thr", 0),
        ("repeat_thr", 1.5),
        ("repeat_thr", "much"),
        ("repeat_thr", True),
        ("repeat_thr", float("nan")),
        ("cb_beta", 1),
        ("cb_beta", -0.1),
        ("bins", (1, 2, 3)),
        ("bins", "middle"),
        ("bootstrap", -1),
        ("bootstrap", 2.5),
        ("debug", "yes please"),
        ("cls_loss", "focal"),
    ],
)
def test_refused_with_the_kinds(key, value):
    with pytest.raises(UsageError, match=key):
        config.check(key, value)


def test_close_matches_are_named():
    with pytest.raises(UsageError, match="did you mean 'repeat_thr'"):
        config.split({"repeat_th": 1}, "train")
    with pytest.raises(UsageError, match="did you mean 'epochs'"):
        config.split({"epoch": 1}, "train")
    with pytest.raises(UsageError, match="did you mean rfs"):
        config.check("sampler", "rsf")


def test_split_knows_whose_key_is_whose():
    ours, theirs = config.split({"sampler": "rfs", "lr0": 0.1, "data": "d.yaml"}, "train")
    assert (ours, theirs) == ({"sampler": "rfs"}, {"lr0": 0.1, "data": "d.yaml"})


def test_a_key_that_cannot_act_in_the_verb_is_refused():
    with pytest.raises(UsageError, match="does not act in 'val'"):
        config.split({"sampler": "rfs"}, "val")


def test_cfg_file_may_hold_both_kinds_and_loses_to_arguments(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("recipe: eql\nlr0: 0.1\nepochs: 7\n")
    ours, theirs = config.split({"cfg": str(path), "epochs": 9}, "train")
    assert (ours, theirs) == ({"recipe": "eql"}, {"lr0": 0.1, "epochs": 9})
    with pytest.raises(LTError, match=r"gone\.yaml"):
        config.split({"cfg": "gone.yaml"}, "train")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("1e-3", 1e-3), ("10,100", (10, 100)), ("[0, 1]", [0, 1]), ("True", True), ("false", False), ("None", None)],
        *[("rfs", "rfs"), ("runs/a b", "runs/a b"), ("", None), ("0", 0), ("007", "007")],
    ],
)
def test_parse_value(text, value):
    assert config.parse_value(text) == value


def test_names_that_ultralytics_has_renamed_still_pass():
    assert config.split({"half": True, "hide_labels": True}, "predict") == ({}, {"half": True, "hide_labels": True})
