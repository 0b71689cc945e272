"""Low rank: write the weights of one layer as a chain of smaller linear layers.

This package knows weight tensors and the layers that hold them, no network. A factorisation is registered under its
field name (``build("factorization", {"svd": {"form": "spatial"}})``) and offers, for a Conv2d or Linear:

    spec = read(module, name)                 the layer's shape, a frozen LayerSpec (layer.py)
    f.refuses(spec)                           "" or why it does not take the layer, as the end of a sentence
    f.axes, f.full(spec)                      names of its rank axes, the full rank along each
    f.spectra(module, name)                   one Axis an axis: .energies falling, unit j is rank j (spectra.py)
    f.stages(spec, ranks)                     {stage name: LayerSpec} of the chain
    f.cost(spec, ranks, size)                 Cost(params, macs, sizes), .per_position, .between (chain.py)
    f.pays(spec, ranks, size)                 fewer parameters and fewer MACs than the layer
    f.memory(spec, ranks)                     bytes that factoring takes; checked before it starts
    f.split(module, ranks, name)              nn.Sequential of named ordinary layers, bias on the last
    f.merge(chain, name)                      the one layer again, exactly

Grouped convolutions are factored group by group, a rank being a rank of every group; depthwise ones are refused. Work
is in float64 on the CPU and deterministic. Ranks of one layer are
chosen by ``ranks``, scored whatever their scaling by ``gauge``, and fitted to activations by ``regression``.
"""
