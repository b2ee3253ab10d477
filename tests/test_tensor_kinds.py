# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Every kind of tensor may reach every function, block, network, loss and inferer.

What is expected comes from the same call with plain tensors of the same values (in float32, for half precision).
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import tempfile
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from bundle.anomaly import (
    ADFA,
    AdaptationLoss,
    AdaptiveChannelAttention,
    CenterBank,
    MeanDistanceLoss,
    conformal,
    keep_features,
)
from bundle.anomaly.adfa import PatchDescriptor
from bundle.anomaly.center_bank import mean_embedding
from bundle.anomaly.coreset import greedy_coreset
from bundle.anomaly.normals import Normals
from bundle.anomaly.padim import PaDiM
from bundle.anomaly.patch_memory import PatchMemory
from bundle.anomaly.patch_statistics import PatchStatistics
from bundle.anomaly.resizing import resized_map
from bundle.anomaly.stacked_maps import stacked_maps
from bundle.anomaly.topk import euclidean as distances
from bundle.anomaly.topk import soft_topk
from bundle.anomaly.topk.distance import COST_SCALES, cost_scale, soft_topk_distance
from bundle.anomaly.topk.smallest import k_smallest
from bundle.anomaly.topk.weights import solve_weights
from bundle.anomaly.whitening import whitening_matrix
from bundle.anomaly.whole_image import WholeImageDistance
from bundle.classification import (
    AttentionLite0,
    ClassExplainer,
    ClassificationLoss,
    SNADenseNet,
    SNAResNet,
    class_activation,
    targets,
)
from bundle.detection import DetectionLoss, PyramidDetector, PyramidInferer, grids, inferer
from bundle.lists.boxes import clipped_boxes
from bundle.localization import (
    MSA,
    AnomalyPrior,
    AttentionMiningInferer,
    BoxAttentionLoss,
    KnowledgePreservationLoss,
    anchors,
    boxes,
    erasure,
    heatmaps,
)
from bundle.localization.components import component_of_maximum
from bundle.localization.msa import MultiScaleAggregation
from bundle.model import typicality
from bundle.networks import EfficientNetLite0, FeatureBackbone
from bundle.networks.attention import (
    ATTENTION_NAMES,
    PyramidPixelContextRecalibration,
    SpectralNormAttention,
    make_attention,
)
from bundle.networks.attention.channel_gates import CBAM, SCSE, EfficientChannelAttention
from bundle.networks.attention.global_attention import AttentionAugmentation, NonLocal
from bundle.networks.attention.spectral import low_rank_approximation
from bundle.networks.efficientnet_lite import InvertedResidual
from bundle.networks.plain import network_input, plain_tensor
from bundle.networks.trunks import WideBottleneck, make_resnet

SIZE = (32, 48)
# names that are no function of a tensor, or one of numbers and words; HeldStages is a base without a forward
NO_TENSOR = set(
    "ATTENTION_NAMES AttentionPlacement BACKBONES COST_SCALES EXPLANATION_NAMES FeatureCache HeldStages KeptMaps "
    "LOSS_NAMES "
    "LoadReport PAPER_SETTING PRECISIONS PRETRAINED_URLS TORCHVISION_LAYOUT TrunkStages adaptive_kernel_size "
    "compact_content save_compact efficientnet_lite0_weights class_names falling_fractions full_precision "
    "is_number load_pretrained number_in read_state_dict shown OnePart true_or_false trunk_stages weights_source "
    "whole_number".split()
)

FLOAT64_ALONE = {"soft_topk_distance_reference", "soft_topk_reference"}  # tests compare others with them
AFTER_THE_NETWORK = set(  # scores, maps and metrics of what a network gave; every workflow goes through them
    "ExportedNetwork anomaly_heatmap class_calibration compute_pointing_game fit_temperature heat_of_normal "
    "mean_of_largest overlaps random_region randomization_check summarize_localization synthetic_anomaly".split()
)


class Case(NamedTuple):
    """What is called, and the tensors it is called with; ``network`` where float32 weights meet any input."""

    names: tuple[str, ...]
    make: Callable[[], Callable[..., Any]]
    inputs: tuple[torch.Tensor, ...]
    network: bool = False
    half: bool = True


class Tagged(torch.Tensor):
    """A subclass that is not MONAI's and changes nothing."""


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def heat(*shape: int) -> torch.Tensor:
    """Return a permutation of different values that half precision holds exactly, 1/512 to 1."""
    number = torch.Size(shape).numel()
    order = torch.randperm(number, generator=torch.Generator().manual_seed(1)).view(shape)
    return (order + 1) / 2 ** (number - 1).bit_length()


def seeded(make: Callable[[], Any]) -> Callable[[], Any]:
    def made() -> Any:
        torch.manual_seed(0)
        found = make()
        return found.eval() if isinstance(found, nn.Module) else found

    return made


def adfa(**settings: Any) -> ADFA:
    network = ADFA(SIZE, weights=None, **{"descriptor_channels": 8, **settings})
    network.center_bank.set_centers(random(*network.center_bank.centers.shape))
    return network


def fitted(network: Any) -> nn.Module:
    network.fit([random(2, 3, *SIZE, seed=5)])
    return network


def preservation_loss() -> Callable[..., Any]:
    network = MSA(2, weights=None, fixed_statistics=True)
    loss = KnowledgePreservationLoss(network, mined_fraction=0.5)
    with torch.no_grad():
        network.classifier.weight.add_(0.1)

    def call(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return loss(network.train()(image), target)

    return call


def explainer(method: str) -> Callable[..., Any]:
    network = SNAResNet(2, attention="se").eval()
    explain = ClassExplainer(network, method=method)
    return lambda image: explain(image, 1)


def mining() -> Callable[..., Any]:
    infer = AttentionMiningInferer(steps=2, prior=lambda x: x[:, :1].abs())
    return lambda image: infer(image.float(), lambda x: x[:, :2, ::8, ::8])  # nothing rounds, so no box moves


def detecting() -> Callable[..., Any]:
    infer = PyramidInferer(count=2)
    rows = torch.cat([random(1, 5, 2), torch.cat([BOXES, BOXES + 3, BOXES[:1]])[None]], dim=-1)
    return lambda image: infer(image.float(), lambda x: rows.expand(len(x), -1, -1))  # the boxes are of no image


def detection_loss(classification: str) -> DetectionLoss:
    return DetectionLoss(PyramidDetector(2, weights=None, pyramid_channels=16), SIZE, classification)


def prior() -> Callable[..., Any]:
    with tempfile.TemporaryDirectory() as folder:
        torch.jit.save(torch.jit.script(nn.AvgPool2d(4)), f"{folder}/prior.ts")
        return AnomalyPrior(Path(folder) / "prior.ts", SIZE)


def from_batches(function: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
    network = adfa(**settings).eval()
    return lambda image: function(network, [{"image": image}])


def cached_map() -> Callable[..., Any]:
    network = adfa(epsilon=0.1)

    def call(image: torch.Tensor) -> torch.Tensor:
        keep_features(network)
        for _ in range(3):  # computed, kept, found
            out = network(image)
        return out

    return call


X, MAPS = random(2, 8, 6, 5), (random(2, 24, 8, 12), random(2, 40, 4, 6, seed=1), random(2, 112, 2, 3, seed=2))
IMAGE = random(2, 3, *SIZE, seed=3)
P, C = random(2, 7, 4), random(11, 4, seed=1)
LABELS = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
COVARIANCE = torch.tensor([[4.0, 1.0], [1.0, 2.0]])
BOXES = torch.tensor([[1.0, 2.0, 9.0, 12.0], [0.0, 0.0, 40.0, 8.0]])


def functions() -> Iterator[Case]:
    for name, function, *inputs in (
        ("box_coverage", lambda b: boxes.box_coverage(b, (32, 48), (8, 12)), BOXES),
        ("boxes_from_heatmaps", lambda h: boxes.boxes_from_heatmaps(h, (24, 20)), heat(2, 2, 6, 5)),
        ("box_from_anchors", lambda h: anchors.box_from_anchors(h, [[0, 0, 0.5, 1], [0.5, 0, 1, 1]]), heat(2, 6, 5)),
        ("cluster_boxes", lambda b: torch.tensor(anchors.cluster_boxes(b, 2)), BOXES),
        ("mean_inside", lambda h: boxes.mean_inside(h, torch.tensor([[[[0, 1, 3, 4]]]])), heat(1, 1, 6, 5)),
        ("grid_anchors", lambda c: grids.grid_anchors(c, [8, 16], 32, 48), (BOXES - 9).view(2, 1, 4)),
        ("decoded_boxes", grids.decoded_boxes, random(2, 2, 4), BOXES),
        (
            "selected_boxes",
            lambda b: inferer.selected_boxes(torch.cat([b[:, :1] - 4, b], dim=1), 32, 48, count=3),
            BOXES,
        ),
        ("image_logits", inferer.image_logits, random(2, 3, 6)),
        ("clipped_boxes", lambda b: clipped_boxes(b, (32, 30)), BOXES),
        ("class_activation_map", class_activation.class_activation_map, X, random(2, 8, seed=1)),
        ("grad_cam", class_activation.grad_cam, X, random(2, 8, 6, 5, seed=1)),
        ("grad_cam_plus_plus", class_activation.grad_cam_plus_plus, X, random(2, 8, 6, 5, seed=1)),
        ("component_of_maximum", component_of_maximum, heat(3, 6, 5)),
        ("conformal_p_values", conformal.conformal_p_values, heat(5), heat(9)),
        ("conformal_threshold", lambda c: conformal.conformal_threshold(c, 0.2), heat(9)),
        ("promised_threshold", lambda c: conformal.promised_threshold(c, 0.2), heat(9)),
        ("euclidean_distances", distances.euclidean_distances, P, C),
        ("expanded_squares", lambda p, c: distances.expanded_squares(p.float(), c.float()), P, C),
        ("squared_distances", distances.squared_distances, P, C),
        ("class_activation_maps", erasure.class_activation_maps, X, random(3, 8, seed=1)),
        ("erased_logits", erasure.erased_logits, X, heat(2, 8, 6, 5).round()),
        ("update_masks", erasure.update_masks, heat(2, 8, 6, 5).round(), heat(2, 8, 6, 5).round()),
        ("final_heatmap", lambda a, b, m: heatmaps.final_heatmap([a, b], [m]), X, X + 1, heat(2, 8, 6, 5).round()),
        ("mined_heatmaps", heatmaps.mined_heatmaps, heat(2, 2, 6, 5)),
        ("normalized_maps", heatmaps.normalized_maps, heat(2, 2, 6, 5), heat(2, 2, 6, 5).round()),
        ("prior_on_grid", lambda a: heatmaps.prior_on_grid(a, (3, 2)), heat(2, 1, 6, 5)),
        ("PatchStatistics", lambda f: PatchStatistics.of(f).covariance(), X),
        ("network_input", lambda x: network_input(x, torch.zeros(1)), X),
        ("plain_tensor", plain_tensor, X),
        ("resized_map", lambda x: [resized_map(x, size) for size in ([3, 2], [12, 10])], X),
        ("k_smallest", lambda v: k_smallest(v, 3, torch.empty(v.shape, dtype=v.dtype)), heat(1, 512)),
        ("greedy_coreset", lambda p: greedy_coreset(p.flatten(0, -2), 3, torch.Generator()), P),
        ("square_roots_", lambda d: distances.square_roots_(d.clone()), heat(3, 9)),
        ("soft_topk", lambda d: soft_topk(d, 2, 0.1), heat(3, 9)),
        ("soft_topk", lambda d, s: soft_topk(d, 2, 0.1, s), heat(3, 9), torch.ones(3, 1)),
        ("solve_weights", lambda d: solve_weights(d.float(), 2, torch.full((3, 1), 9.0)), heat(3, 9)),
        ("low_rank_approximation", low_rank_approximation, random(2, 6, 5)),
        ("balanced_class_weights", targets.balanced_class_weights, LABELS),
        ("multi_hot", lambda t: targets.multi_hot(t, 2), LABELS),
        ("positive_class_weights", targets.positive_class_weights, LABELS),
        ("whitening_matrix", whitening_matrix, COVARIANCE),
        ("cells_of", typicality.cells_of, random(2, 8, 9, 8)),
        ("cell_means", typicality.cell_means, random(6, 16, 3)),
        ("stacked_maps", lambda *maps: stacked_maps(list(maps), [8, 12]), *MAPS),
    ):
        yield Case((name,), lambda function=function: function, tuple(inputs))
    # quantiles are not built for half precision; cells_of widens
    distance = lambda c: typicality.typical_distance(c, *typicality.cell_means(c))  # noqa: E731
    yield Case(("typical_distance",), lambda: distance, (random(6, 16, 3),), half=False)
    fitted_distances = lambda: typicality.cross_fitted_distances  # noqa: E731
    yield Case(("cross_fitted_distances",), fitted_distances, (random(10, 16, 3),), half=False)
    for scale in COST_SCALES:
        yield Case(("cost_scale",), lambda scale=scale: lambda d: cost_scale(d, scale), (heat(3, 9),))
        for epsilon in (0.0, 0.02, 0.5):
            call = lambda p, c, e=epsilon, s=scale: soft_topk_distance(p, c, 3, e, s)  # noqa: E731
            yield Case(("soft_topk_distance",), lambda call=call: call, (P, C))


def blocks() -> Iterator[Case]:
    x = random(2, 32, 8, 6)
    for names, make, *inputs in (
        (("AdaptiveChannelAttention",), lambda: AdaptiveChannelAttention(32), x),
        (("WholeImageDistance",), lambda: WholeImageDistance((256, 192), (8, 6), 32, memory_size=4), x),
        (("CBAM",), lambda: CBAM(32), x),
        (("SCSE",), lambda: SCSE(32), x),
        (("EfficientChannelAttention",), lambda: EfficientChannelAttention(32), x),
        (("AttentionAugmentation",), lambda: AttentionAugmentation(32, (8, 6)), x),
        (("NonLocal",), lambda: NonLocal(32), x),
        (("PyramidPixelContextRecalibration",), lambda: PyramidPixelContextRecalibration(32, (4, 3)), x),
        (("SpectralNormAttention",), lambda: SpectralNormAttention(rank=2), x),
        (("InvertedResidual",), lambda: InvertedResidual(32, 32, 5, 1, 6), x),
        (("WideBottleneck",), lambda: WideBottleneck(128, 32), random(2, 128, 4, 4)),
        (("MultiScaleAggregation",), lambda: MultiScaleAggregation(32, 8), x, random(2, 8, 4, 3)),
        (("MultiScaleAggregation",), lambda: MultiScaleAggregation(32, 8, "deconv"), x, random(2, 8, 4, 3)),
        *((("make_attention",), lambda name=name: make_attention(name, 32, (8, 6)), x) for name in ATTENTION_NAMES),
    ):
        yield Case(names, seeded(make), tuple(inputs))
    for scale in COST_SCALES:
        make = lambda scale=scale: CenterBank(11, 4, epsilon=0.02, scale=scale)  # noqa: E731
        yield Case(("CenterBank",), seeded(make), (P,), network=True)


def networks() -> Iterator[Case]:
    for names, make in (
        (("FeatureBackbone",), lambda: FeatureBackbone(weights=None)),
        (("FeatureBackbone",), lambda: FeatureBackbone("resnet18", None)),
        (("EfficientNetLite0",), lambda: EfficientNetLite0(num_classes=2)),
        (("ADFA",), lambda: adfa(epsilon=0.0)),
        *((("ADFA",), lambda scale=scale: adfa(epsilon=0.02, scale=scale, map_stride=4)) for scale in COST_SCALES),
        (("ADFA", "keep_features"), cached_map),
        (("ADFA",), lambda: adfa(backbone="resnet18", epsilon=0.1)),
        (("PaDiM",), lambda: fitted(PaDiM(SIZE, weights=None))),
        (("PatchMemory",), lambda: fitted(PatchMemory(SIZE, memory_size=9, weights=None))),
        *((("AttentionLite0",), lambda a=a: AttentionLite0(2, SIZE, a, weights=None)) for a in ("sna", "ppcr", "aa")),
        (("SNAResNet",), lambda: SNAResNet(2)),
        (("SNAResNet",), lambda: SNAResNet(2, attention="cbam", placement="both")),
        (("SNADenseNet",), lambda: SNADenseNet(2)),
        (("PyramidDetector",), lambda: PyramidDetector(2, weights=None, pyramid_channels=16, attention="sna")),
        (("PyramidInferer",), detecting),
        (("MSA",), lambda: MSA(2, weights=None, atrous=True)),
        (("MSA",), lambda: MSA(2, "resnet18", weights=None, upsample="deconv")),
        (("MSA",), lambda: MSA(2, weights=None, aggregate=False)),
        (("mean_embedding",), lambda: from_batches(mean_embedding)),
        (
            ("Normals",),
            lambda: from_batches(lambda net, batches: Normals(batches).moments(net.stacked_features).covariance()),
        ),
        (("AttentionMiningInferer",), mining),
        *((("ClassExplainer",), lambda m=m: explainer(m)) for m in ("cam", "grad_cam", "grad_cam_plus_plus")),
    ):
        yield Case(names, seeded(make), (IMAGE,), network=True)
    yield Case(("AnomalyPrior",), prior, (IMAGE,), network=True)
    yield Case(("make_resnet",), seeded(lambda: make_resnet("resnet18")), (IMAGE,), half=False)  # MONAI's network
    descriptor = lambda: PatchDescriptor((24, 40, 112), 8)  # noqa: E731
    yield Case(("PatchDescriptor",), seeded(lambda: _of_list(descriptor())), MAPS, half=False)


def losses() -> Iterator[Case]:
    d, region = random(3, 1, 4, 6).abs() + 1, torch.zeros(3, 1, 8, 12)
    region[2, :, 2:6] = 1
    yield Case(("AdaptationLoss",), AdaptationLoss, (d, region))
    yield Case(("MeanDistanceLoss",), MeanDistanceLoss, (d,))
    yield Case(("BoxAttentionLoss",), BoxAttentionLoss, (random(2, 4, 6), heat(2, 4, 6)))
    anchors = detection_loss("focal").anchors
    pred = torch.cat([random(2, len(anchors), 2), anchors.expand(2, -1, -1)], dim=-1)
    rows = torch.tensor([[[0.0, 4, 4, 20, 16], [1, 0, 0, 0, 0]], [[1.0, 8, 8, 40, 30], [-1, -1, -1, -1, -1]]])
    yield Case(("DetectionLoss",), lambda: detection_loss("focal"), (pred, rows), half=False)
    for name in ("bce", "focal", "cross_entropy"):
        items = [{"label": row} for row in LABELS.tolist()]
        make = lambda name=name, items=items: ClassificationLoss(name, 2, items)  # noqa: E731
        yield Case(("ClassificationLoss",), make, (random(2, 2), LABELS))
    yield Case(("KnowledgePreservationLoss",), seeded(preservation_loss), (IMAGE, LABELS), network=True)


def _of_list(module: nn.Module) -> Callable[..., Any]:
    return lambda *maps: module(list(maps))


CASES = [
    pytest.param(case, id=f"{'-'.join(case.names)}-{i}")
    for i, case in enumerate((*functions(), *blocks(), *networks(), *losses()))
]
SPACED = {
    "MetaTensor": lambda x: MetaTensor(x, meta={"filename_or_obj": "a.png"}),
    "subclass": lambda x: x.as_subclass(Tagged),
    "strided": lambda x: torch.stack([x, x + 1], dim=-1)[..., 0],
    "transposed": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x,
    "requires_grad": lambda x: x.clone().requires_grad_(),
}


def leaves(found: Any) -> list[torch.Tensor]:
    """Return all tensors of a result, plain."""
    if isinstance(found, dict):
        return [leaf for key in sorted(found) for leaf in leaves(found[key])]
    if isinstance(found, tuple | list):
        return [leaf for part in found for leaf in leaves(part)]
    found = torch.as_tensor(found).detach().as_subclass(torch.Tensor)
    return [found.double() if found.is_floating_point() else found]


@pytest.mark.parametrize("case", CASES)
def test_every_layout_and_class_gives_what_a_plain_tensor_gives(case: Case) -> None:
    call = case.make()
    expected = leaves(call(*case.inputs))
    mixed = (MetaTensor(case.inputs[0]), *case.inputs[1:])
    kinds = {kind: tuple(change(x) for x in case.inputs) for kind, change in SPACED.items()} | {"mixed": mixed}
    for kind, inputs in kinds.items():
        torch.testing.assert_close(
            leaves(call(*inputs)), expected, atol=1e-4, rtol=1e-3, msg=lambda text, kind=kind: f"{kind}: {text}"
        )


@pytest.mark.parametrize("case", [p for p in CASES if p.values[0].half])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_gives_what_its_values_give(case: Case, dtype: torch.dtype) -> None:
    inputs = tuple(x.to(dtype) for x in case.inputs)
    call = case.make()
    expected = leaves(call(*(x.float() for x in inputs)))
    if isinstance(call, nn.Module) and not case.network:
        call = call.to(dtype)  # a block computes in the type of its network
    digits = 1e-4 if case.network else torch.finfo(dtype).eps * 8
    torch.testing.assert_close(leaves(call(*inputs)), expected, atol=digits, rtol=digits)


def test_gradients_of_a_metatensor_are_those_of_a_plain_one() -> None:
    for epsilon in (0.0, 0.02):
        gradients = []
        for kind in (lambda x: x, MetaTensor, lambda x: x.as_subclass(Tagged)):
            patches = P.clone().requires_grad_()
            soft_topk_distance(kind(patches), kind(C), 3, epsilon).sum().backward()
            gradients.append(patches.grad)
        torch.testing.assert_close(gradients[1:], gradients[:1] * 2, atol=0, rtol=0)


class TestEveryNameIsTried(unittest.TestCase):
    def test_no_public_name_is_left_out(self):
        tried = (
            {name for case in CASES for name in case.values[0].names} | NO_TENSOR | FLOAT64_ALONE | AFTER_THE_NETWORK
        )
        for folder in ("anomaly", "classification", "detection", "localization", "networks"):
            package = importlib.import_module(f"bundle.{folder}")
            for module in pkgutil.walk_packages(package.__path__, f"bundle.{folder}."):
                names = vars(importlib.import_module(module.name))
                public = names["__all__"] if not module.ispkg else ()
                left = {name for name in public if takes_tensors(names[name])} - tried
                self.assertEqual(left, set(), module.name)


def takes_tensors(what: Any) -> bool:
    """Whether it is a module, or a function with a tensor among its parameters."""
    if inspect.isclass(what):
        return issubclass(what, nn.Module)
    return inspect.isfunction(what) and any("Tensor" in str(p) for p in inspect.signature(what).parameters.values())


if __name__ == "__main__":
    unittest.main()
