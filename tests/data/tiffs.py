"""Independent writer of TIFF files, for depths and tags that Pillow does not write."""

from __future__ import annotations

import struct
import zlib

import numpy as np

SHORT, LONG = 3, 4


def packed(samples: np.ndarray, bits: int, order: str) -> bytes:
    """Packs `samples: [H, W]` integers into rows of `bits` bits each, padded to whole bytes."""
    if bits in (8, 16, 32):
        return samples.astype(f"{order}i{bits // 8}").tobytes()
    rows = []
    for row in samples:
        text = "".join(f"{int(value):0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        rows.append(int(text, 2).to_bytes(len(text) // 8, "big"))
    return b"".join(rows)


def page(samples, bits=8, *, photometric=1, sample_format=1, deflate=False, order="<", **tags):
    """Returns (pixel bytes, tag -> (type, value)) of a grey page; `tags` adds tags, such as
    t254=1.
    """
    samples = np.asarray(samples)
    data = packed(samples, bits, order)
    entries = {
        256: (LONG, samples.shape[1]),
        257: (LONG, samples.shape[0]),
        258: (SHORT, bits),
        259: (SHORT, 8 if deflate else 1),
        262: (SHORT, photometric),
        277: (SHORT, 1),
        278: (LONG, samples.shape[0]),
        339: (SHORT, sample_format),
    }
    entries.update({int(name[1:]): (LONG, value) for name, value in tags.items()})
    return zlib.compress(data) if deflate else data, entries


def planes(samples, bits=8, *, order="<", **options):
    """Returns a page of RGB `samples: [3, H, W]`, one plane after the other; see `page`."""
    data, entries = page(np.concatenate(samples), bits, photometric=2, order=order, **options)
    entries[257] = entries[278] = (LONG, np.shape(samples)[1])
    entries.update({258: (SHORT, (bits,) * 3), 277: (SHORT, 3), 284: (SHORT, 2)})
    return data, entries


def write(path, *pages, order="<"):
    """Writes the pages one after the other, each plane as a strip, and returns the path."""
    body = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 0)
    link = 4
    for data, entries in pages:
        strips = entries[277][1] if 284 in entries else 1
        size, start = len(data) // strips, len(body)
        body += data + b"\0" * (len(data) % 2)
        entries = {**entries, 273: (LONG, tuple(start + i * size for i in range(strips)))}
        entries[279] = (LONG, (size,) * strips)
        fields = []
        for tag, (kind, value) in sorted(entries.items()):
            values = value if isinstance(value, tuple) else (value,)
            field = struct.pack(f"{order}{len(values)}{'H' if kind == SHORT else 'I'}", *values)
            if len(field) > 4:
                field, body = struct.pack(f"{order}I", len(body)), body + field + bytes(2)
            fields.append(
                struct.pack(f"{order}HHI", tag, kind, len(values)) + field.ljust(4, b"\0")
            )
        body += b"\0" * (len(body) % 2)
        body = body[:link] + struct.pack(f"{order}I", len(body)) + body[link + 4 :]
        body += struct.pack(f"{order}H", len(fields)) + b"".join(fields)
        link = len(body)
        body += struct.pack(f"{order}I", 0)
    path.write_bytes(body)
    return path
