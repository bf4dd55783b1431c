"""One sentence for every seam into Ultralytics that would break silently. Run them on another release with
`python scripts/check_upstream.py VERSION`."""

import ast
import inspect
import textwrap

import numpy as np
import torch
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.data import augment
from ultralytics.data.augment import (
    Albumentations,
    BaseMixTransform,
    CopyPaste,
    CutMix,
    LetterBox,
    MixUp,
    Mosaic,
    RandomFlip,
    RandomPerspective,
)
from ultralytics.data.base import BaseDataset
from ultralytics.data.build import InfiniteDataLoader
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.engine.exporter import Exporter
from ultralytics.engine.model import Model
from ultralytics.engine.predictor import BasePredictor
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.engine.validator import BaseValidator
from ultralytics.models.yolo.detect import DetectionPredictor, DetectionTrainer, DetectionValidator
from ultralytics.nn.modules import Detect
from ultralytics.nn.tasks import BaseModel, load_checkpoint, torch_safe_load
from ultralytics.utils import loss as losses
from ultralytics.utils import tal
from ultralytics.utils.dist import generate_ddp_file
from ultralytics.utils.loss import BboxLoss, E2ELoss, RotatedBboxLoss, v8DetectionLoss, v8OBBLoss
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.tal import TaskAlignedAssigner
from ultralytics.utils.torch_utils import ModelEMA

from yolo_lt.ultra.holdout import PER_IMAGE


def source(thing):
    return inspect.getsource(thing)


def test_arguments_ride_in_the_base_configuration():
    assert "get_cfg(cfg, overrides)" in source(BaseTrainer.__init__), "seam 1: the trainer no longer merges cfg"
    assert "get_cfg(ckpt_args)" in source(BaseTrainer.check_resume), "seam 1: resume no longer takes checkpoint args"
    assert '"args": vars(trainer.args)' in source(generate_ddp_file), "seam 1: DDP children no longer get all args"


def test_the_run_folder_is_made_in_the_constructor():
    assert "get_save_dir" in source(BaseTrainer.__init__), "checks before the constructor may no longer be needed"


def test_the_loader_is_built_by_get_dataloader_and_restarted_by_reset():
    assert "self.get_dataloader(" in source(BaseTrainer._build_train_pipeline), "seam 2: another way to the loader"
    assert hasattr(InfiniteDataLoader, "reset"), "seam 2: the loader cannot be restarted"
    assert "train_loader.reset()" in source(BaseTrainer._do_train), "seam 2: closing mosaic no longer restarts"
    assert "self.iterator = None" in source(InfiniteDataLoader.__init__), "seam 2: discarding a loader is not free"


def test_mosaic_closes_and_recovers_through_methods():
    loop = source(BaseTrainer._do_train)
    for name in ("_close_dataloader_mosaic()", "_handle_nan_recovery(epoch)", 'run_callbacks("on_train_epoch_end")'):
        assert f"self.{name}" in loop, f"seam 2: the loop no longer calls {name}"


def test_partners_come_from_get_indexes():
    assert "self.get_indexes()" in source(BaseMixTransform.get_params), "seam 3: partners are drawn elsewhere"
    assert "self.dataset.get_image_and_label(i)" in source(BaseMixTransform.get_params), "seam 3: draws are not seen"
    assert all(issubclass(t, BaseMixTransform) for t in (Mosaic, MixUp, CutMix)), "seam 3: other mix transforms"
    assert "buffer_enabled" in source(Mosaic), "seam 3: mosaic's buffer has another name"
    assert "max_buffer_length" in source(BaseDataset), "seam 3: the buffer's length has another name"


def test_a_semantic_mask_is_carried_by_every_transform_that_moves_pixels():
    carrying = {c.__name__ for c in (Mosaic, MixUp, CutMix, CopyPaste, RandomPerspective, LetterBox, RandomFlip)}
    moving = {n for n, c in vars(augment).items() if isinstance(c, type) and "apply_semantic" in vars(c)}
    assert carrying <= moving, "seam 3: a transform no longer carries 'semantic_mask', the federated mask's place"
    assert "mask is not None or len(" in source(Albumentations.__call__), (
        "seam 3: Albumentations treats a mask otherwise, see ultra/sources.py"
    )
    assert 'labels.get("semantic_mask") is None' in source(CutMix.get_params), (
        "seam 3: CutMix no longer asks for a mask where it decides, see ultra/sources.py"
    )
    assert "255" in source(Mosaic.apply_semantic), "seam 3: masks are no longer padded with 255"


def test_the_box_loss_is_called_by_position_with_its_scores_fifth():
    for kind in (BboxLoss, RotatedBboxLoss):
        names = list(inspect.signature(kind.forward).parameters)
        assert names[5] == "target_scores", f"seam 5: {kind.__name__} takes its scores elsewhere"
    for kind in (v8DetectionLoss.get_assigned_targets_and_loss, v8OBBLoss.loss):
        assert "self.bbox_loss(" in source(kind), "seam 5: the box loss is no longer the attribute bbox_loss"


def test_the_classification_loss_is_the_attribute_bce_and_only_summed():
    code = source(v8DetectionLoss)
    assert "self.bce(pred_scores, target_scores.to(dtype))" in code, "seam 4: bce is called in another way"
    assert "bce_loss.sum()" in code, "seam 4: the elementwise loss is used beyond its sum"
    assert {"one2many", "one2one"} <= set(vars(E2ELoss(_end_to_end()))), "seam 4: branches have other names"


ASSIGNERS = [c for c in vars(tal).values() if isinstance(c, type) and issubclass(c, TaskAlignedAssigner)]
CONSUMERS = [  # of the assigner's targets
    v8DetectionLoss.get_assigned_targets_and_loss,
    v8OBBLoss.loss,
    BboxLoss.forward,
    RotatedBboxLoss.forward,
]


def test_the_assigner_makes_its_targets_in_get_targets_and_scales_them_once():
    names = ["self", "gt_labels", "gt_bboxes", "target_gt_idx", "fg_mask"]
    assert list(inspect.signature(TaskAlignedAssigner.get_targets).parameters) == names, "seam 4: other arguments"
    targets = source(TaskAlignedAssigner.get_targets)
    assert "target_labels.shape[1], self.num_classes)" in targets, "seam 4: the targets' width is no longer num_classes"
    assert "return target_labels, target_bboxes, target_scores" in targets, "seam 4: get_targets answers otherwise"
    inner = source(TaskAlignedAssigner._forward)
    call = "target_labels, target_bboxes, target_scores = self.get_targets("
    metric = "norm_align_metric = align_metric.amax(-2).unsqueeze(-1)"
    assert inner.count("self.get_targets(") == inner.count(call) == 1, "seam 4: targets come from elsewhere"
    assert metric in inner, "seam 4: the metric is no longer one number per anchor, (B, A, 1)"
    assert "target_scores = target_scores * norm_align_metric" in inner, "seam 4: targets are scaled in another way"
    uses = [node for node in ast.walk(tree(TaskAlignedAssigner._forward)) if is_targets(node)]
    assert len(uses) == 4, "seam 4: _forward does more to its targets than to scale and return them"
    for kind in ASSIGNERS:
        own = {"get_targets", "_forward"} & set(vars(kind))
        assert kind is TaskAlignedAssigner or not own, f"seam 4: {kind.__name__} makes its targets itself"


def test_the_assigner_is_called_by_position_and_without_boxes_copies_the_scores_shape():
    names = ["self", "pd_scores", "pd_bboxes", "anc_points", "gt_labels", "gt_bboxes", "mask_gt"]
    for kind in ASSIGNERS:
        assert list(inspect.signature(kind.forward).parameters)[:7] == names, f"seam 4: {kind.__name__} takes others"
    code = source(TaskAlignedAssigner.forward)
    empty = code[code.index("if self.n_max_boxes == 0:") : code.index("try:")]
    assert "self.n_max_boxes = gt_bboxes.shape[1]" in code, "seam 4: no boxes is recognised in another way"
    assert empty.count("torch.zeros_like(pd_scores),") == 1, "seam 4: without boxes targets have another shape"
    assert code.count("return self._forward(") == 1, "seam 4: the first attempt answers otherwise"
    assert "x.new_empty((bs, *x.shape[1:])) for x in result" in code, "seam 4: the retry wants other than tensors"
    for consumer in CONSUMERS[:2]:
        calls = [n for n in ast.walk(tree(consumer)) if isinstance(n, ast.Call) and called(n) == "self.assigner"]
        assert [len(n.args) for n in calls] == [6], f"seam 4: {consumer.__qualname__} calls the assigner otherwise"


def test_targets_are_only_summed_cast_and_indexed_by_the_foreground():
    module = ast.parse(source(losses))
    users = {
        f"{kind.name}.{method.name}"
        for kind in module.body
        if isinstance(kind, ast.ClassDef)
        for method in kind.body
        if any(is_targets(node) or is_targets_argument(node) for node in ast.walk(method))
    }
    assert users == {c.__qualname__ for c in CONSUMERS}, "seam 4: others work on the assigner's targets"
    for consumer in CONSUMERS:
        code = tree(consumer)
        parents = {child: node for node in ast.walk(code) for child in ast.iter_child_nodes(node)}
        uses = [
            ast.unparse(parents[node]) for node in ast.walk(code) if is_targets(node) and not handed_on(node, parents)
        ]
        known = {"target_scores.sum", "target_scores.to", "target_scores[fg_mask]"}
        assert uses, f"seam 4: {consumer.__qualname__} does not use the targets"
        assert set(uses) <= known, f"seam 4: {consumer.__qualname__} does more to the targets: {set(uses) - known}"
        text = source(consumer)
        assert text.count("target_scores.to(") == text.count("target_scores.to(dtype)"), "seam 4: cast in another way"
        assert text.count("target_scores.sum(") == text.count("target_scores.sum()"), "seam 4: summed in another way"
        of_rows = text.count("target_scores[fg_mask].sum(-1")
        assert text.count("target_scores[fg_mask]") == of_rows, "seam 4: rows of targets are used beyond their sums"


def tree(function):
    return ast.parse(textwrap.dedent(source(function)))


def called(node):
    return ast.unparse(node.func)


def is_targets(node):
    return isinstance(node, ast.Name) and node.id == "target_scores"


def is_targets_argument(node):
    return isinstance(node, ast.arg) and node.arg == "target_scores"


def handed_on(node, parents):
    """Received from the assigner, or given to the loss of boxes, which is a consumer itself."""
    parent = parents[node]
    stored = isinstance(node.ctx, ast.Store) and ast.unparse(parents[parent]).split(" = ")[1].startswith(
        "self.assigner("
    )
    return stored or (isinstance(parent, ast.Call) and called(parent) == "self.bbox_loss")


def _end_to_end():
    model = YOLO("yolo26n.yaml").model
    model.args = get_cfg()
    return model


def test_resume_rebuilds_the_criterion_before_our_setup_ends():
    setup = source(BaseTrainer._setup_train)
    assert setup.index("self.resume_training(ckpt)") > setup.index("ModelEMA("), "seam 4: resume moved"


def test_batches_pass_preprocess_batch_on_the_cpu():
    assert "self.preprocess_batch(batch)" in source(BaseTrainer._do_train), "seam 6: batches go another way"
    collated = YOLODataset.collate_fn([{"img": torch.zeros(3, 4, 4), "lt_tiles": (1, 2)}])
    assert collated["lt_tiles"] == ((1, 2),), "seam 6: collate changes our key"


def test_validation_passes_postprocess_update_metrics_and_scale():
    assert "max_time_img" in inspect.signature(non_max_suppression).parameters, "seam 8: NMS has no time limit key"
    call = source(DetectionValidator.postprocess)
    for argument in ("multi_label=True", "max_det=self.args.max_det", "end2end=self.end2end", "self.args.iou"):
        assert argument in call, f"seam 8: Ultralytics no longer validates with {argument}; ours would differ"


def test_metrics_of_an_epoch_come_from_the_validators_stats_and_stand_in_a_fixed_order():
    code = source(BaseTrainer._setup_train)
    assert 'self.validator.metrics.keys + self.label_loss_items(prefix="val")' in code, "seam 8: a skipped epoch's row"
    assert 'metrics.pop("fitness"' in source(BaseTrainer.validate), "seam 8: fitness no longer comes with the stats"
    assert "{**stats, **trainer.label_loss_items(" in source(BaseValidator.__call__), "seam 8: the order of a row"
    call = source(BaseValidator.__call__)
    assert call.index("self.gather_stats()") < call.index("self.get_stats()"), "seam 8: stats before they are gathered"
    for name in ("gather_stats", "get_stats", "preprocess"):
        assert name in vars(DetectionValidator), f"seam 8: DetectionValidator has no {name} of its own"


def test_nms_gives_the_best_first_so_that_max_det_is_a_cut():
    raw = torch.rand(2, 4 + 3, 400, generator=torch.Generator().manual_seed(0)) * 60
    raw[:, 4:] /= 60
    kw = {"nc": 3, "multi_label": True, "max_time_img": 1e6}
    few, many = (non_max_suppression(raw.clone(), 0.2, 0.7, max_det=n, **kw) for n in (5, 30_000))
    for a, b in zip(few, many, strict=True):
        assert len(b) > 5, "a test on fewer boxes shows nothing"
        assert torch.equal(a, b[:5]), "seam 8: NMS with a larger max_det begins otherwise"


def test_predictors_take_one_calls_settings_and_pass_postprocess():
    predict = source(Model.predict)
    handover = predict.index("self.predictor.set_prompts(prompts)")
    assert handover > predict.index("self.predictor.args = get_cfg"), "predict: kept predictors are handed nothing"
    assert handover < predict.index("self.predictor(source=source"), "predict: settings come after the run"
    assert "type(self.predictor) is not predictor" in predict, "predict: another class no longer makes a new predictor"
    post = source(DetectionPredictor.postprocess)
    for argument in ("self.args.conf", "max_det=self.args.max_det", 'nc=0 if self.args.task == "detect"'):
        assert argument in post, f"predict: Ultralytics no longer runs NMS with {argument}; our filter would not fit"
    assert "prediction.shape[-1] == 6 or end2end" in source(non_max_suppression), "predict: final rows look different"
    assert "multi_label" not in post, "predict: a box may have several classes; our filter keeps its best alone"
    assert "set_head_attr(max_det=" in source(BasePredictor.stream_inference), "predict: the head's cut stays lifted"


def test_the_exporter_can_be_met_before_it_writes():
    call = source(Exporter.__call__)
    start = call.index('self.run_callbacks("on_export_start")')
    for done in ("self.file = file", "self.metadata = {", "self.model = model", "self.imgsz = check_imgsz("):
        assert call.index(done) < start, f"export: {done} comes after on_export_start"
    assert start < call.index('f"export_{fmt}"'), "export: on_export_start comes after the file"
    write = source(Exporter)
    write = write[write.index("def export_onnx") : write.index("def export_openvino")]
    assert 'self.file.with_suffix(".onnx")' in write, "export: the file cannot be sent to another folder"
    assert "self.metadata.items()" in write, "export: our metadata is not written"
    assert "_callbacks=self.callbacks" in source(Model.export), "export: our callback is not passed on"


def test_an_end_to_end_head_can_be_asked_for_every_anchor():
    assert "self.postprocess(y.permute(0, 2, 1))" in source(Detect.forward), "parity: the choice of rows moved"
    assert "not self.end2end and not self.xyxy" in source(Detect.decode_bboxes), "parity: boxes have another form"


def test_checkpoints_are_written_through_last_and_best():
    code = source(BaseTrainer.save_model)
    for call in ("self.last.write_bytes", "self.best.write_bytes"):
        assert call in code, f"seam 9: {call} is gone, the write is no longer atomic"


def test_the_label_cache_keeps_its_messages():
    code = source(YOLODataset._load_or_scan_cache) + source(YOLODataset.cache_labels)
    assert 'x["msgs"] = msgs' in code, "labels: dropped images are no longer listed in the cache"


def test_what_ours_calls_by_keyword_exists():
    assert "autodownload" in inspect.signature(check_det_dataset).parameters, "download code can no longer be refused"
    assert "safe_only" in inspect.signature(torch_safe_load).parameters, "checkpoints can no longer be read safely"
    assert "_build_train_pipeline" in vars(DetectionTrainer), "the detection trainer builds its pipeline elsewhere"


def test_freezing_goes_by_name_and_everything_else_is_made_to_learn():
    setup = source(BaseTrainer._setup_train)
    assert "self.args.freeze" in setup, "seam 7: freeze is read from elsewhere"
    assert setup.index("self.set_model_attributes()") < setup.index("self.args.freeze"), "seam 7: too late to freeze"
    assert 'f"model.{x}."' in setup, "seam 7: names are matched in another way"
    assert "v.requires_grad = True" in setup, "seam 7: other parameters are no longer forced to learn"
    assert "freeze_layer_names" in source(BaseTrainer._model_train), "seam 7: frozen BatchNorm is not put in eval"
    assert "self._pairs" in source(ModelEMA.update), "seam 7: the average has no pairs to shorten"
    assert "self.ema = ModelEMA(self.model)" in source(BaseTrainer._load_checkpoint_state), "seam 7: the average stays"


def test_a_training_model_looks_up_its_loss():
    assert "return self.loss(x" in source(BaseModel.forward), "seam 4: a batch no longer goes to self.loss"


def test_the_holdout_knows_every_list_that_has_an_entry_per_image(toy):
    for cache in (None, "ram"):
        dataset = YOLODataset(str(toy.parent / "images" / "train"), data=check_det_dataset(str(toy)), cache=cache)
        per_image = {k for k, v in vars(dataset).items() if len_of(v) == dataset.ni}
        assert per_image <= set(PER_IMAGE) | {"buffer"}, "seam 2: a list per image that keep_only does not shorten"


def len_of(value):
    value = getattr(value, "shapes", value)  # images in memory are packed
    return len(value) if isinstance(value, (list, tuple, np.ndarray)) else None


def test_the_head_is_the_last_module_and_can_be_run_again_on_its_inputs():
    assert "self.init_metrics(unwrap_model(model))" in source(BaseValidator.__call__), (
        "maps: the validator's model moved"
    )
    head = YOLO("yolo11n.yaml").model.eval().model[-1]
    inputs = [torch.rand(1, c, 8 // 2**i, 8 // 2**i) for i, c in enumerate((64, 128, 256))]
    kept = [x.clone() for x in inputs]
    first, second = head(inputs), head(list(inputs))
    assert torch.equal(first[0], second[0]), "maps: the head of one input gives two outputs"
    assert all(torch.equal(a, b) for a, b in zip(inputs, kept, strict=True)), (
        "maps: the head changes its inputs in place"
    )
    assert isinstance(first, tuple), "maps: an evaluated head no longer gives predictions first"


def test_a_checkpoint_may_carry_more_and_is_made_float32_when_it_is_loaded():
    assert 'ckpt.get("ema") or ckpt.get("model")' in source(load_checkpoint), "calibrate: another model is loaded"
    assert "candidate.float()" in source(load_checkpoint), "calibrate: a checkpoint of two dtypes may not load"


def test_an_optimizer_step_is_followed_by_the_average():
    text = source(BaseTrainer.optimizer_step)
    order = [text.index(x) for x in ("unscale_(self.optimizer)", "step(self.optimizer)", "self.ema.update(self.model)")]
    assert order == sorted(order), "strategy=scale: the average may miss what the optimizer's hook writes"
