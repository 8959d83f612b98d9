"""The operators that TensorRT 11's ONNX parser imports: a graph in, a CheckError that names the node out."""

import onnx

from export.checks.checks import CheckError

LOWEST_OPSET, HIGHEST_OPSET = 9, 25

_OPERATORS = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike Ceil
    Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div
    Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm
    GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid
    HardSwish Hardmax Identity If InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less
    LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min Mish Mod
    Mul Neg NonZero Not OneHot Or PRelu Pad Pow QuantizeLinear Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize Round
    ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign
    SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample
    Where Xor
"""
TENSORRT_OPERATORS = frozenset(_OPERATORS.split())
"""Of the default domain; see docs/operators.md of github.com/onnx/onnx-tensorrt."""


def check_operators(graph: bytes) -> None:
    """Gate: TensorRT's parser knows the opset and every operator, and uint8 is cast before anything else is done.

    Raises:
        CheckError: naming the node and its operator.
    """
    model = onnx.load_from_string(graph)
    for opset in model.opset_import:
        if opset.domain not in ("", "ai.onnx"):
            raise CheckError(f"the graph uses operators of {opset.domain!r}; TensorRT knows only ONNX's own")
        if not LOWEST_OPSET <= opset.version <= HIGHEST_OPSET:
            raise CheckError(f"the graph has opset {opset.version}; TensorRT reads {LOWEST_OPSET} to {HIGHEST_OPSET}")
    inputs = {value.name for value in model.graph.input}
    for node in model.graph.node:
        if node.op_type not in TENSORRT_OPERATORS:
            raise CheckError(
                f"node {node.name!r} is a {node.op_type}, which TensorRT does not have: choose a backbone without it, "
                "or export with --precisions int8, which is for ONNX Runtime only"
            )
        if node.op_type != "Cast" and inputs.intersection(node.input):
            raise CheckError(f"node {node.name!r} ({node.op_type}) reads uint8 images; TensorRT can only cast them")
