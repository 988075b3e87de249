"""What a graph of ONNX holds."""

from collections import Counter

from nfnet_mm.errors import UserError, some

from .formats import needed


def check_graph(path: str) -> Counter[str]:
    """Count an ONNX graph's operators; every conv must read its weight as it is stored, and none be normalised.

    Raises:
        UserError: a weight is computed in the graph, or it has batch normalisation.
    """
    graph = needed('onnx').load(path).graph
    stored = {one.name for one in graph.initializer}
    stored |= {node.output[0] for node in graph.node if node.op_type == 'Constant'}
    convs = [node for node in graph.node if node.op_type in ('Conv', 'ConvTranspose')]
    computed = [node.name for node in convs if node.input[1] not in stored]
    if computed:
        raise UserError(f'the graph computes weights of {len(computed)} convs: {some(computed)}')
    operators = Counter(node.op_type for node in graph.node)
    if count := operators['BatchNormalization']:
        raise UserError(f'the graph has {count} nodes of batch normalisation, which are not folded into a conv')
    return operators
