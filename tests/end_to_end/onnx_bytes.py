"""ONNX models as bytes, without the onnx package."""
import math
import struct


def field(number, value):
    """Of a protobuf: an integer, or bytes with their length."""
    def varint(n):
        return bytes([n & 127 | (128 if n > 127 else 0)]) + (varint(n >> 7) if n > 127 else b"")
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def packed(values):
    """Integers one behind the other, as a protobuf has repeated ones."""
    return b"".join(field(0, v)[1:] for v in values)


def tensor(name, shape, values):
    """A float32 initializer."""
    assert len(values) == math.prod(shape)
    return field(1, packed(shape)) + field(2, 1) + field(8, name.encode()) + field(9, struct.pack(f"<{len(values)}f", *values))


def counts(name, shape, values):
    """An int64 initializer."""
    return field(1, packed(shape)) + field(2, 7) + field(8, name.encode()) + field(9, struct.pack(f"<{len(values)}q", *values))


def ints(name, values):
    """An attribute."""
    return field(1, name.encode()) + field(8, packed(values)) + field(20, 7)


def branch(name, nodes, outputs, initializers=()):
    """An attribute that is a graph, as If has two of."""
    return field(1, name.encode()) + field(6, graph(nodes, [], outputs, initializers)) + field(20, 5)


def integer(name, value):
    return field(1, name.encode()) + field(3, value) + field(20, 2)


def node(op, inputs, outputs, *attributes, name=None):
    return b"".join([*(field(1, i.encode()) for i in inputs), *(field(2, o.encode()) for o in outputs), field(3, (name or outputs[0]).encode()),
                     field(4, op.encode()), *(field(5, a) for a in attributes)])


def port(name, *dims, dtype=1):
    """An input or output, float32 unless said otherwise; a dim is a size, or a name."""
    shape = b"".join(field(1, field(1, d) if isinstance(d, int) else field(2, d.encode())) for d in dims)
    return field(1, name.encode()) + field(2, field(1, field(1, dtype) + field(2, shape)))


def graph(nodes, inputs, outputs, initializers=()):
    return b"".join([*(field(1, n) for n in nodes), field(2, b"g"), *(field(5, t) for t in initializers), *(field(11, i) for i in inputs),
                     *(field(12, o) for o in outputs)])


def model(nodes, inputs, outputs, initializers=(), opset=13):
    return field(1, 8) + field(7, graph(nodes, inputs, outputs, initializers)) + field(8, field(1, b"") + field(2, opset))
