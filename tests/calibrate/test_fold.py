import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d, linear

from yolo_lt.calibrate import Affine
from yolo_lt.calibrate.fold import folded

SCALE, SHIFT = np.array([0.3, 1.0, 2.7, 1 / 3, 1.9]), np.array([-2.1, 0.0, 0.7, 1 / 7, 3.0])


def tensors(dtype, shape=(5, 8, 1, 1)):
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=shape) / 3, rng.normal(-8, 2, 5)
    return torch.from_numpy(weight).to(dtype), torch.from_numpy(bias).to(dtype)


@pytest.mark.parametrize("keep_bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_convolution_gives_the_calibrated_logits(keep_bias, dtype, kernel):
    affine = Affine(SCALE, SHIFT, keep_bias)
    weight, bias = tensors(dtype, (5, 8, kernel, kernel))
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 8, 4, 6)))
    logits = conv2d(x, weight.double(), bias.double()).movedim(1, -1).numpy()
    w, b = folded(weight, bias, affine)
    ours = conv2d(x, w.double(), b.double()).movedim(1, -1).numpy()
    np.testing.assert_allclose(ours, affine(logits, bias.double().numpy()), rtol=0, atol=1e-5)
    assert np.abs(ours - logits).max() > 1


@pytest.mark.parametrize("keep_bias", [False, True])
def test_a_linear_layer_is_folded_like_a_convolution(keep_bias):
    affine = Affine(SCALE, SHIFT, keep_bias)
    weight, bias = tensors(torch.float32, (5, 8))
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(7, 8)))
    logits = linear(x, weight.double(), bias.double()).numpy()
    w, b = folded(weight, bias, affine)
    ours = linear(x, w.double(), b.double()).numpy()
    np.testing.assert_allclose(ours, affine(logits, bias.double().numpy()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("keep_bias", [False, True])
def test_numbers_are_those_of_float64_rounded_once_to_float32(dtype, keep_bias):
    weight, bias = tensors(dtype)
    w64, b64 = weight.double().numpy(), bias.double().numpy()
    w, b = folded(weight, bias, Affine(SCALE, SHIFT, keep_bias))
    assert (w.dtype, b.dtype) == (torch.float32, torch.float32)
    np.testing.assert_array_equal(w.numpy(), (w64 * SCALE[:, None, None, None]).astype(np.float32))
    np.testing.assert_array_equal(b.numpy(), ((b64 if keep_bias else b64 * SCALE) + SHIFT).astype(np.float32))


def test_a_shift_is_not_rounded_to_the_half_precision_of_the_checkpoint():
    """Between 8 and 16 float16 has steps of 1/128."""
    weight, bias = torch.ones(2, 1, dtype=torch.float16), torch.tensor([-10, -10], dtype=torch.float16)
    _, b = folded(weight, bias, Affine(np.ones(2), np.array([0.003, -0.003])))
    np.testing.assert_allclose(b.numpy(), [-9.997, -10.003], atol=1e-6)


@pytest.mark.parametrize("keep_bias", [False, True])
def test_only_the_weights_are_scaled_where_the_bias_is_kept(keep_bias):
    weight, bias = torch.tensor([[[[3.0]]], [[[4.0]]]]), torch.tensor([-5.0, -6.0])
    w, b = folded(weight, bias, Affine(np.array([2.0, 0.5]), np.array([1.0, -1]), keep_bias))
    assert w.flatten().tolist() == [6, 2]
    assert b.tolist() == ([-4, -7] if keep_bias else [-9, -4])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("keep_bias", [False, True])
def test_what_goes_in_is_not_changed_and_shares_nothing_with_what_comes_out(dtype, keep_bias):
    weight, bias = tensors(dtype)
    affine = Affine(SCALE.copy(), SHIFT.copy(), keep_bias)
    before = weight.clone(), bias.clone()
    w, b = folded(weight, bias, affine)
    w.zero_()
    b.zero_()
    assert torch.equal(weight, before[0])
    assert torch.equal(bias, before[1])
    np.testing.assert_array_equal(affine.scale, SCALE)
    np.testing.assert_array_equal(affine.shift, SHIFT)


@pytest.mark.parametrize("keep_bias", [False, True])
def test_no_change_gives_the_same_numbers(keep_bias):
    weight, bias = tensors(torch.float16)
    w, b = folded(weight, bias, Affine(np.ones(5), np.zeros(5), keep_bias))
    assert torch.equal(w, weight.float())
    assert torch.equal(b, bias.float())
    w.zero_()
    assert weight.any()
