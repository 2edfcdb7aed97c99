"""XGBoost to ONNX: trees with categorical splits as one TreeEnsemble node, equal to the booster bit for bit.

XGBoost adds float32 leaves to the intercept in tree order. ONNX Runtime adds its trees in order too, but its own
intercept last; as a first tree of one leaf the intercept keeps XGBoost's order of additions.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from components.train.graphs import assemble

_LESS, _MEMBER = 1, 6
"""Codes of BRANCH_LT and BRANCH_MEMBER in the operator's specification (ai.onnx.ml, TreeEnsemble-5)."""


@dataclass
class _Ensemble:
    """Columns of the node's attributes: one entry per inner node, one weight per leaf."""

    roots: list[int] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    modes: list[int] = field(default_factory=list)
    splits: list[float] = field(default_factory=list)
    missing_true: list[int] = field(default_factory=list)
    true_ids: list[int] = field(default_factory=list)
    false_ids: list[int] = field(default_factory=list)
    true_leaves: list[int] = field(default_factory=list)
    false_leaves: list[int] = field(default_factory=list)
    members: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def add(self, feature: int, mode: int, split: float, missing_true: bool) -> None:
        self.features.append(feature)
        self.modes.append(mode)
        self.splits.append(split)
        self.missing_true.append(int(missing_true))

    def branch(self, true: tuple[int, bool], false: tuple[int, bool]) -> None:
        self.true_ids.append(true[0])
        self.true_leaves.append(int(true[1]))
        self.false_ids.append(false[0])
        self.false_leaves.append(int(false[1]))


def tree_graph(booster: Any, *, width: int, logistic: bool) -> Any:
    """Convert a booster with one output to ONNX.

    Source of the layout: the JSON model schema of XGBoost 3 and the TreeEnsemble operator of ai.onnx.ml 5.
    """
    from onnx import TensorProto, helper

    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    ensemble = _Ensemble()
    _add_constant(ensemble, _intercept(learner, logistic=logistic))
    for tree in learner["gradient_booster"]["model"]["trees"]:
        if tree["left_children"][0] == -1:
            _add_constant(ensemble, tree["split_conditions"][0])
        else:
            _add_tree(ensemble, tree)

    def tensor(name: str, kind: int, values: list[Any]) -> Any:
        return helper.make_tensor(name, kind, [len(values)], values)

    membership = {"membership_values": tensor("members", TensorProto.FLOAT, ensemble.members)}
    node = helper.make_node(
        "TreeEnsemble",
        ["inputs"],
        ["margin"],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function=1,
        post_transform=0,
        tree_roots=ensemble.roots,
        nodes_featureids=ensemble.features,
        nodes_modes=tensor("modes", TensorProto.UINT8, ensemble.modes),
        nodes_splits=tensor("splits", TensorProto.FLOAT, ensemble.splits),
        nodes_missing_value_tracks_true=ensemble.missing_true,
        nodes_truenodeids=ensemble.true_ids,
        nodes_falsenodeids=ensemble.false_ids,
        nodes_trueleafs=ensemble.true_leaves,
        nodes_falseleafs=ensemble.false_leaves,
        leaf_targetids=[0] * len(ensemble.weights),
        leaf_weights=tensor("weights", TensorProto.FLOAT, ensemble.weights),
        **(membership if ensemble.members else {}),
    )
    last = helper.make_node("Sigmoid" if logistic else "Identity", ["margin"], ["prediction"])
    return assemble([node, last], [], width)


def _intercept(learner: dict[str, Any], *, logistic: bool) -> float:
    """Return the intercept as a margin, rounded to float32 where XGBoost rounds."""
    (base,) = json.loads(learner["learner_model_param"]["base_score"])
    score = np.float32(base)
    return float(-np.log(np.float32(1) / score - np.float32(1)) if logistic else score)


def _add_constant(ensemble: _Ensemble, weight: float) -> None:
    """Add a tree of one leaf: by the specification a node whose branches are both that leaf."""
    ensemble.roots.append(len(ensemble.features))
    ensemble.weights.append(weight)
    leaf = (len(ensemble.weights) - 1, True)
    ensemble.add(0, _LESS, 0.0, missing_true=False)
    ensemble.branch(leaf, leaf)


def _add_tree(ensemble: _Ensemble, tree: dict[str, Any]) -> None:
    """Add a tree; XGBoost goes left if less, but right if a category is a member."""
    left, right = tree["left_children"], tree["right_children"]
    places: dict[int, tuple[int, bool]] = {}
    inner = 0
    for node, child in enumerate(left):
        if child == -1:
            places[node] = (len(ensemble.weights), True)
            ensemble.weights.append(tree["split_conditions"][node])
        else:
            places[node] = (len(ensemble.features) + inner, False)
            inner += 1
    ensemble.roots.append(places[0][0])
    segments = zip(tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True)
    categories = {node: tree["categories"][start : start + size] for node, start, size in segments}
    for node, (less, more) in enumerate(zip(left, right, strict=True)):
        if less == -1:
            continue
        missing_left = bool(tree["default_left"][node])
        if node in categories:
            ensemble.add(tree["split_indices"][node], _MEMBER, 0.0, missing_true=not missing_left)
            ensemble.members += [*map(float, categories[node]), float("nan")]
            ensemble.branch(places[more], places[less])
        else:
            split = tree["split_conditions"][node]
            ensemble.add(tree["split_indices"][node], _LESS, split, missing_true=missing_left)
            ensemble.branch(places[less], places[more])
