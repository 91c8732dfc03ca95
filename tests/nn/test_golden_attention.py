"""The attention modules against the official ones: outputs and every gradient."""

import pytest
import torch

from golden_data import cases, load_case
from leandetr.checkpoints.keymap import Drop, Rename, fill
from leandetr.checkpoints.official.lite_detr import NEVER_ASKED
from leandetr.nn.deform_attention import DeformAttention, KeyAwareAttention
from sampling_calls import running, ways

NAMES = (
    Rename("sampling_offsets.{p}", "offsets.linear.{p}"),
    Rename("attention_weights.{p}", "weights.{p}"),
    Rename("value_proj.{p}", "value.{p}"),
    Rename("key_proj.{p}", "key.{p}"),
    Rename("output_proj.{p}", "output.{p}"),
)
ASKED = Rename("query_proj.{p}", "query.{p}")


def build(case):
    sizes = case.meta.get("hyper_parameters") or case.meta["args"]
    flat = {"heads": sizes["n_heads"], "levels": sizes["n_levels"], "points": sizes["n_points"]}
    shared = sizes.get("same_loc", False)
    if sizes.get("key_aware", False):
        module = KeyAwareAttention(
            sizes["d_model"], **flat, shared_offsets=shared, own_key=sizes["proj_key"]
        )
        rules = [*NAMES, ASKED]
    else:
        module = DeformAttention(sizes["d_model"], **flat, shared_offsets=shared)
        rules = [*NAMES, Drop("query_proj.{p}", NEVER_ASKED)]
    dropped = fill(module, case.weights(), rules)
    assert set(dropped) <= {"query_proj.weight", "query_proj.bias"}
    return module, rules


def run(case, module):
    t = case.tensors
    levels = case.meta["plain"]["spatial_shapes"] if "plain" in case.meta else case.meta["levels"]
    shapes = tuple((h, w) for h, w in levels)
    inputs = {
        name: t[name].clone().requires_grad_()
        for name in ("query", "reference_points", "input_flatten")
    }
    hole = t.get("input_padding_mask", t.get("padding_mask"))
    if hole is None:
        hole = torch.zeros(t["input_flatten"].shape[:2], dtype=torch.bool)
    output = module(
        inputs["query"], inputs["reference_points"], inputs["input_flatten"], shapes, hole
    )
    return output, inputs


@ways
@pytest.mark.parametrize(
    "name", cases("ms_deform_attn/*", "lite_detr/kda_*", "lite_detr/msda_keyaware0_*")
)
def test_module_equals_official(name, way):
    case = load_case(name)
    module, rules = build(case)
    with running(way):
        output, inputs = run(case, module)
        torch.testing.assert_close(output, case.tensors["output"], atol=1e-5, rtol=0)
        if name.startswith("lite_detr/kda_d256"):  # stored without gradients
            return
        output.backward(case.tensors.get("cotangent", case.tensors.get("grad_output")))
    for key, tensor in inputs.items():
        torch.testing.assert_close(
            tensor.grad, case.tensors[f"grad_{key}"], atol=1e-4, rtol=1e-4, msg=key
        )
    ours = {rule.official: rule.ours for rule in rules if isinstance(rule, Rename)}
    checked = 0
    for key, expected in case.tensors.items():
        if not key.startswith("grad."):
            continue
        layer, kind = key.removeprefix("grad.").rsplit(".", 1)
        path = ours[f"{layer}.{{p}}"].replace("{p}", kind)
        torch.testing.assert_close(
            module.get_parameter(path).grad, expected, atol=1e-4, rtol=1e-4, msg=key
        )
        checked += 1
    assert checked >= 4
