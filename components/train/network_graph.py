"""The network of `torch_tabular` as ONNX operators.

Written by hand: torch's TorchScript exporter is deprecated, and its successor needs onnxscript and 9 seconds.
"""

from typing import Any

import numpy as np

from components.train.graphs import assemble
from components.train.network import Layout


def network_graph(weights: dict[str, Any], plan: Layout) -> Any:
    """Mirror `network.forward` and the output transformation; `weights` are NumPy arrays by name."""
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    constants: dict[str, Any] = dict(weights)

    def add(operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    parts = []
    if plan.numbers:
        constants |= {"numbers.positions": np.array(plan.numbers, dtype=np.int64), "zero": np.float32(0)}
        raw = add("Gather", ["inputs", "numbers.positions"], "numbers.raw", axis=1)
        missing = add("IsNaN", [raw], "numbers.missing")
        centred = add("Sub", [raw, "numbers.mean"], "numbers.centred")
        scaled = add("Mul", [centred, "numbers.inverse_scale"], "numbers.scaled")
        parts.append(add("Where", [missing, "zero", scaled], "numbers.filled"))
        parts.append(add("Cast", [missing], "numbers.flags", to=TensorProto.FLOAT))
    for position, known in plan.categories.items():
        name = f"category.{position}"
        constants |= {f"{name}.position": np.int64(position), f"{name}.unknown": np.float32(known)}
        raw = add("Gather", ["inputs", f"{name}.position"], f"{name}.raw", axis=1)
        missing = add("IsNaN", [raw], f"{name}.missing")
        filled = add("Where", [missing, f"{name}.unknown", raw], f"{name}.filled")
        code = add("Cast", [filled], f"{name}.code", to=TensorProto.INT64)
        parts.append(add("Gather", [f"embedding.{position}", code], f"{name}.embedded", axis=0))
    hidden = add("Concat", parts, "features", axis=1)
    for index in range(len(plan.hidden) + 1):
        layer = f"layer.{index}"
        hidden = add("Gemm", [hidden, f"{layer}.weight", f"{layer}.bias"], f"{layer}.linear", transB=1)
        if index < len(plan.hidden):
            hidden = add("Relu", [hidden], f"{layer}.relu")
    if plan.task == "classification":
        add("Sigmoid", [hidden], "prediction")
    else:
        add("Add", [add("Mul", [hidden, "target.scale"], "scaled"), "target.mean"], "prediction")
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    return assemble(nodes, initializers, plan.width)
