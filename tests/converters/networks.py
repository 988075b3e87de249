"""Small networks of every family as trees of random weights, built from the shapes the papers prescribe.

Written without the package's own tables: what a converter makes of them is held against this.
"""

import numpy as np

ROOTS = {'NFNet': 'NFNet', 'NFResNet': 'NF_ResNet', 'NFRegNet': 'NF_RegNet'}


def deepmind_tree(family='NFNet', depths=(1, 2, 1, 1), widths=(8, 16, 16, 24), classes=5, channels=3, seed=0):
    """A tree as the authors' modules of ``family`` name it; all float32 numbers random."""
    random = np.random.default_rng(seed)
    root, tree = ROOTS[family], {}

    def put(path, **shapes):
        tree['/~/'.join(filter(None, (root, path)))] = {
            name: np.float32(random.normal(size=shape)) if shape == () else random.normal(size=shape).astype(np.float32)
            for name, shape in shapes.items()
        }

    def conv(path, kernel, inputs, outputs):
        put(path, w=(kernel, kernel, inputs, outputs), gain=(outputs,), bias=(outputs,))

    width = widths[0] // 2 if family == 'NFNet' else widths[0]
    if family == 'NFNet':
        for i, (inputs, outputs) in enumerate(((channels, 16), (16, 32), (32, 64), (64, width))):
            conv(f'stem_conv{i}', 3, inputs, outputs)
    else:
        conv('initial_conv', 7 if family == 'NFResNet' else 3, channels, width)
    number = 0
    for depth, outputs in zip(depths, widths):
        for block in range(depth):
            path = ('nf_res_block' if family == 'NFResNet' else 'nf_block') + (f'_{number}' if number else '')
            middle = 2 * width if family == 'NFRegNet' and number else max(4, outputs // 2)
            if block == 0:
                conv(f'{path}/~/conv_shortcut', 1, width, outputs)
            conv(f'{path}/~/conv0', 1, width, middle)
            conv(f'{path}/~/conv1', 3, 4 if family != 'NFResNet' else middle, middle)
            if family == 'NFNet':
                conv(f'{path}/~/conv1b', 3, 4, middle)
            conv(f'{path}/~/conv2', 1, middle, outputs)
            if family != 'NFResNet':
                seen = middle if family == 'NFRegNet' else outputs
                put(f'{path}/~/squeeze_excite/~/linear', w=(seen, seen // 2), b=(seen // 2,))
                put(f'{path}/~/squeeze_excite/~/linear_1', w=(seen // 2, seen), b=(seen,))
            put(path, skip_gain=())
            width, number = outputs, number + 1
    if family != 'NFResNet':
        conv('final_conv', 1, width, 2 * width)
        width *= 2
    put('linear', w=(width, classes), b=(classes,))
    return tree


def golden_tree(arrays, kind='param'):
    """One of the trees in a file of reference arrays."""
    tree = {}
    for key, array in arrays.items():
        if key.startswith(f'{kind}|'):
            _, module, name = key.split('|')
            tree.setdefault(module, {})[name] = array
    return tree
