"""What a graph of ONNX holds."""

from collections import Counter
from typing import Any

from nfnet_mm.errors import UserError, some


def operators(graph: Any) -> Counter[str]:
    """{operator: nodes} of a graph."""
    return Counter(node.op_type for node in graph.node)


def check_graph(graph: Any) -> None:
    """Hold a graph to it that every conv reads its weight as it is stored, and that none is normalised.

    Raises:
        UserError: a weight is computed in the graph, or it has batch normalisation.
    """
    stored = {one.name for one in graph.initializer}
    stored |= {node.output[0] for node in graph.node if node.op_type == 'Constant'}
    convs = [node for node in graph.node if node.op_type in ('Conv', 'ConvTranspose')]
    if computed := [node.name for node in convs if node.input[1] not in stored]:
        raise UserError(f'the graph computes weights of {len(computed)} convs: {some(computed)}')
    if count := operators(graph)['BatchNormalization']:
        raise UserError(f'the graph has {count} nodes of batch normalisation, which are not folded into a conv')
