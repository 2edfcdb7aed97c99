"""The frame of every exported graph: `inputs` [n, k] float32 to `prediction` [n, 1] float32."""

from typing import Any

IR_VERSION = 10
OPSET = 18
TREE_OPSET = 5
"""`ai.onnx.ml` version that has TreeEnsemble with set membership."""


def assemble(nodes: list[Any], initializers: list[Any], width: int) -> Any:
    """Build and check a model from nodes that end in `prediction`."""
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        nodes,
        "driftline",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["n", 1])],
        initializers,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", TREE_OPSET)],
        ir_version=IR_VERSION,
        producer_name="driftline",
    )
    onnx.checker.check_model(model)
    return model
