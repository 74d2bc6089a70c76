"""Reads `.tfq` files with NumPy alone, as `docs/format.md` says. It uses no code of tfquant."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import struct
import zlib
from pathlib import Path

import numpy as np

PAGE = Path(__file__).resolve().parents[2] / "docs" / "format.md"
ONLY = [0, 65536]  # the row with a single symbol
f4 = np.float32


# --- Layout ---------------------------------------------------------------------------------------


def header_of(data: bytes) -> dict:
    """Returns the fields of a file and its streams. An AssertionError says that it is damaged."""
    assert data[:4] == b"\x89TFQ"
    version, count = data[4:6]
    assert version in (1, 2)
    name, fingerprint, height, width, crc = struct.unpack_from("<16s8sIII", data, 6)
    (quality,) = struct.unpack_from("<H", data, 42) if version == 2 else (0,)
    start = 44 if version == 2 else 42
    lengths = struct.unpack_from(f"<{count}I", data, start)
    start += 4 * count
    streams = []
    for length in lengths:
        streams.append(data[start : start + length])
        start += length
    assert len(data) == start + 4
    assert struct.unpack("<I", data[-4:]) == (zlib.crc32(data[:-4]),)
    return {
        "version": version, "codec": name.rstrip(b"\0").decode(), "fingerprint": fingerprint.hex(),
        "height": height, "width": width, "symbols": crc, "quality": quality, "streams": streams,
    }  # fmt: skip


# --- Range coder ----------------------------------------------------------------------------------


class Stream:
    """A decoder of one stream."""

    def __init__(self, data: bytes):
        self._data, self._position = data, 4
        self._value, self._size = int.from_bytes(data[:4].ljust(4, b"\0"), "big"), 1 << 32

    def symbol(self, row: list) -> int:
        """Returns the next symbol, which has the cumulative frequencies `row`."""
        low, high = 0, len(row) - 1
        while high - low > 1:
            middle = (low + high) // 2
            if self._size * row[middle] >> 16 <= self._value:
                low = middle
            else:
                high = middle
        below = self._size * row[low] >> 16
        self._value -= below
        self._size = (self._size * row[low + 1] >> 16) - below
        if self._size <= 1 << 16:
            word = self._data[self._position : self._position + 2].ljust(2, b"\0")
            self._size <<= 16
            self._value = self._value << 16 | int.from_bytes(word, "big")
            self._position += 2
        return low


def sequence(streams: list, rows: list) -> list:
    """Returns the symbols of a sequence, which is cut over the streams."""
    length = -(-len(rows) // len(streams))
    symbols = []
    for number, stream in enumerate(streams):
        piece = rows[number * length : (number + 1) * length]
        symbols += [stream.symbol(row) for row in piece]
        for _ in range(length - len(piece)):
            stream.symbol(ONLY)
    return symbols


# --- Tables ---------------------------------------------------------------------------------------


def _escape_rows() -> list:
    """Returns the 50 escape rows of the page, each 49 cumulative frequencies."""
    text = PAGE.read_text()
    frequencies: dict[int, list] = {}
    for line in text[text.index("     0: 5296") : text.index("Row 25 + i")].splitlines():
        number, colon, rest = line.rpartition(":")
        if colon:
            row = frequencies.setdefault(int(number), [])
        row += map(int, rest.split())
    for row in frequencies.values():
        row += [1] * (48 - len(row))
    for i in range(1, 25):
        frequencies[25 + i] = [frequencies[25 - i][place ^ 1] for place in range(48)]
    return [[0, *np.cumsum(frequencies[number]).tolist()] for number in range(50)]


ESCAPE_ROWS = _escape_rows()
_OWN_NUMBERS = {"ChannelTable": 0, "ScaleTable": 4, "MeanScaleTable": 8, "DecisionTable": 4}


class Table:
    """The table of a latent.

    Attributes:
      kind: name of its class.
      own: the class's own numbers.
      windows: (first symbol, number of symbols, escape row) of each row.
      rows: cumulative frequencies of each row.
    """

    def __init__(self, data: bytes):
        name, _, numbers = data.partition(b"\0")
        self.kind = name.decode()
        count, *rest = np.frombuffer(numbers, "<i4").tolist()
        start = _OWN_NUMBERS[self.kind]
        self.own, self.windows, self.rows = rest[:start], [], []
        lengths = [3] * count
        if self.kind != "DecisionTable":
            self.windows = [tuple(rest[start + 3 * i : start + 3 * i + 3]) for i in range(count)]
            lengths = [size + 2 for _, size, _ in self.windows]
            start += 3 * count
        for length in lengths:
            self.rows.append(rest[start : start + length])
            start += length
        assert start == len(rest)

    def scale_rows(self, sigma: np.ndarray) -> np.ndarray:
        """Returns the row for each scale of a `ScaleTable`."""
        shift, bottom, top, _ = self.own
        return np.clip(bits(sigma) >> shift, bottom, top) - bottom

    def mean_rows(self, mu: np.ndarray, sigma: np.ndarray) -> tuple:
        """Returns the row, the centre and the direction for each element of a `MeanScaleTable`."""
        shift, bottom, top, _, wide, columns, _, _ = self.own
        level = np.clip(bits(sigma) >> shift, bottom, top)
        centre = np.floor(mu + f4(0.5))
        fraction = mu - centre
        steps = (f4(0.5) - np.abs(fraction)) / sigma * f4(8)
        column = np.clip(steps, f4(0), f4(columns - 1)).astype(np.int64)
        row = (np.minimum(level, wide) - bottom) * columns + np.maximum(level - wide, 0) + column
        return np.clip(row, 0, len(self.rows) - 1), centre, np.where(fraction < 0, -1, 1)


def in_windows(streams: list, table: Table, rows: np.ndarray) -> tuple:
    """Returns the integers that the given rows code, and the number of escapes."""
    rows = rows.tolist()
    symbols = sequence(streams, [table.rows[row] for row in rows])
    values = [table.windows[row][0] + symbol for row, symbol in zip(rows, symbols)]
    escaped = [i for i, row in enumerate(rows) if symbols[i] == table.windows[row][1]]
    if not escaped:
        return np.array(values), 0
    classes = sequence(streams, [ESCAPE_ROWS[table.windows[rows[i]][2]] for i in escaped])
    numbers = [1 << k // 2 for k in classes]
    for piece in range(3):
        sizes = [min(max(k // 2 - 8 * piece, 0), 8) for k in classes]
        uniform = [[s << 16 - size for s in range((1 << size) + 1)] for size in sizes]
        found = sequence(streams, uniform)
        numbers = [number | low << 8 * piece for number, low in zip(numbers, found)]
    for i, k, number in zip(escaped, classes, numbers):
        first, count, _ = table.windows[rows[i]]
        values[i] = first + count + number - 1 if k % 2 else first - number
    return np.array(values), len(escaped)


# --- Functions of float32 -------------------------------------------------------------------------


def bits(x: np.ndarray) -> np.ndarray:
    """Returns the bit patterns of float32 numbers."""
    return x.view(np.int32).astype(np.int64)


def exp(x: np.ndarray) -> np.ndarray:
    """Returns the exponential that the format defines."""
    x = np.clip(x * f4(1.44269502), f4(-126), f4(127))
    whole = np.rint(x)
    fraction = x - whole
    m = f4(0.00132546027) * fraction
    for coefficient in (0.00967199914, 0.055507794, 0.24022232, 0.693146944):
        m = (m + f4(coefficient)) * fraction
    return (m + f4(1)) * (whole.astype(np.int32) + 127 << 23).view(f4)


def tail(u: np.ndarray) -> np.ndarray:
    """Returns the mass of a Gaussian above `u * sqrt(2)`, as the format defines it."""
    distance = np.minimum(np.abs(u), f4(4.24264069))
    p = f4(0.000133236521) * distance
    for coefficient in (-0.000496892259, 0.00443928363, 0.0199537985, 0.0354533531):
        p = (p + f4(coefficient)) * distance
    p = p + f4(1)
    for _ in range(5):
        p = p * p
    return np.where(u >= 0, f4(0.5) / p, f4(1) - f4(0.5) / p)


def total(x: np.ndarray) -> np.ndarray:
    """Returns the sum over three components in their order."""
    return x[0] + x[1] + x[2]


# --- Decisions ------------------------------------------------------------------------------------


class Decisions:
    """Binary decisions on the elements of a part, each a mixture of three Gaussians.

    Args:
      streams: the decoders.
      rows: the rows of the table.
      logits, mu, sigma: [3, n] float32.
      around_mean: true if the latent is quantized around its mean.
    """

    def __init__(self, streams, rows, logits, mu, sigma, around_mean):
        self._streams, self._rows = streams, rows
        weight = exp(logits - logits.max(0))
        self._weight = weight = weight / total(weight)
        mean = total(weight * mu)
        if around_mean:
            mu, mean = mu - mean, np.zeros_like(mean)
        self._centre = np.rint(mean)
        far = np.abs(mu - mean) + f4(5) * sigma
        self._reach = np.where(weight > f4(0.0001), far, f4(0)).max(0)
        self._slope = f4(0.707106781) / sigma
        self._start = (self._centre - f4(0.5) - mu) * self._slope

    def values(self) -> tuple:
        """Returns the integers, and how many are beyond their first range of distances."""
        everyone = np.ones(self._centre.shape, bool)
        above = total(self._weight * tail(self._start))
        below = total(self._weight) - above
        heavy = np.full_like(above, 2.0**-14)
        left = self._decide(everyone, above + heavy, below + heavy) == 1
        self._start = np.where(left, -self._start, self._start)
        self._low = np.stack([np.where(left, below, above), heavy])
        self._high = np.zeros_like(self._low)
        self._distance = np.zeros(left.shape, np.int64)

        whole = np.clip(self._reach, f4(1), f4(4096)).astype(np.int64)
        exponents = [min(max(each, 1), 4095).bit_length() for each in whole.tolist()]
        width = 2 ** np.maximum(exponents, 4)
        half = width.copy()
        while (half > 16).any():
            self._halve(half, half > 16)
        for _ in range(4):
            self._halve(half, everyone)
        beyond = self._distance == width - 1
        self._search(beyond)
        centre = self._centre.astype(np.int64)
        values = np.where(left, centre - 1 - self._distance, centre + self._distance)
        return values, np.count_nonzero(beyond)

    def _halve(self, half: np.ndarray, active: np.ndarray) -> None:
        half[active] //= 2
        middle = self._edge(self._distance + half)
        is_far = active & (self._between(active, middle) == 1)
        self._distance[is_far] += half[is_far]
        self._low = np.where(is_far, middle, self._low)
        self._high = np.where(active & ~is_far, middle, self._high)

    def _search(self, beyond: np.ndarray) -> None:
        """Finds distances beyond the first range. Only these elements are in the sequences."""
        furthest = np.zeros_like(self._distance)
        self._high = np.zeros_like(self._high)
        while True:
            active = beyond & (furthest != self._distance + 1)
            if not active.any():
                return
            halfway = (self._distance + furthest) // 2
            further = np.where(furthest == 0, 2 * self._distance + 1, halfway)
            middle = self._edge(further)
            is_far = active & (self._between(active, middle, beyond) == 1)
            is_far &= further <= 2**24 - 2
            self._distance = np.where(is_far, further, self._distance)
            self._low = np.where(is_far, middle, self._low)
            furthest = np.where(active & ~is_far, further, furthest)
            self._high = np.where(active & ~is_far, middle, self._high)

    def _edge(self, distance: np.ndarray) -> np.ndarray:
        """Returns the two masses beyond a distance, [2, n]."""
        d = distance.astype(f4)
        mixture = total(self._weight * tail(self._start + self._slope * d))
        return np.stack([mixture, np.sqrt(f4(2.0**-28) / (f4(1) + d))])

    def _between(self, active: np.ndarray, middle: np.ndarray, which=None) -> np.ndarray:
        near, far = (
            np.maximum(a[0] - b[0], f4(0)) + (a[1] - b[1])
            for a, b in ((self._low, middle), (middle, self._high))
        )
        return self._decide(active, near, far, which)

    def _decide(self, active, near, far, which=None) -> np.ndarray:
        """Returns the symbols of `which`, 0 for others. Those that are not `active` wait."""
        which = np.ones_like(active) if which is None else which
        with np.errstate(invalid="ignore", over="ignore"):
            odds = np.maximum(near, f4(1e-30)) / np.maximum(far, f4(1e-30))
        index = np.clip(bits(odds) >> 18, 3552, 4575) - 3552
        rows = [self._rows[i] if on else ONLY for i, on in zip(index[which], active[which])]
        symbols = np.zeros(active.shape, np.int64)
        symbols[which] = sequence(self._streams, rows)
        return symbols


# --- Exact layers ---------------------------------------------------------------------------------


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, f4(0))


def leaky(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, f4(0.01) * x)


class Layer:
    """A layer of integers. Its methods map [rows, columns, inputs] float32 to outputs, float32."""

    def __init__(self, kernel: np.ndarray, bias: np.ndarray, integers: dict):
        self._kernel, self._bias, self._integers = kernel.astype(np.int64), bias, integers

    def _run(self, x: np.ndarray, sum_of) -> np.ndarray:
        """Adds `sum_of(n, channels)` over the groups of input channels."""
        part = self._integers
        n = np.rint(x * np.ldexp(f4(1), part["inputs"]))
        n = np.clip(n, part["low"], part["high"]).astype(np.int64)
        groups, channels = int(part["groups"][0]), n.shape[-1]
        ends = [i * channels // groups for i in range(groups + 1)]
        first, *others = (
            sum_of(n[..., start:end], slice(start, end)).astype(f4)
            for start, end in zip(ends, ends[1:])
        )
        for other in others:
            first = np.rint(first + other)
        return np.rint(first + self._bias).astype(f4) * np.ldexp(f4(1), -part["outputs"])

    def dense(self, x: np.ndarray) -> np.ndarray:
        """Computes a matrix product for each element."""
        return self._run(x, lambda n, channels: n @ self._kernel[channels])

    def convolution(self, x: np.ndarray) -> np.ndarray:
        """Computes a convolution of stride 1."""
        side = len(self._kernel)
        return self._taps(x, [(i, j, self._kernel[i, j]) for i in range(side) for j in range(side)])

    def some_taps(self, x: np.ndarray, taps: range) -> np.ndarray:
        """Computes a convolution 5 x 5 that has only 12 of the 25 taps."""
        return self._taps(x, [(t // 5, t % 5, w) for t, w in zip(taps, self._kernel)], 5)

    def _taps(self, x: np.ndarray, taps: list, side: int = 0) -> np.ndarray:
        rows, columns, _ = x.shape
        margin = ((side or len(self._kernel)) - 1) // 2

        def sum_of(n: np.ndarray, channels: slice) -> np.ndarray:
            n = np.pad(n, ((margin, margin), (margin, margin), (0, 0)))
            return sum(n[i : i + rows, j : j + columns] @ w[channels] for i, j, w in taps)

        return self._run(x, sum_of)

    def transposed(self, x: np.ndarray) -> np.ndarray:
        """Computes a transposed convolution 5 x 5 of stride 2."""
        rows, columns, _ = x.shape

        def sum_of(n: np.ndarray, channels: slice) -> np.ndarray:
            out = np.zeros((2 * rows + 4, 2 * columns + 4, self._kernel.shape[2]), np.int64)
            for i in range(5):
                for j in range(5):
                    made = n @ self._kernel[i, j][:, channels].T
                    out[i : i + 2 * rows : 2, j : j + 2 * columns : 2] += made
            return out[1 : 1 + 2 * rows, 1 : 1 + 2 * columns]

        return self._run(x, sum_of)

    def up(self, x: np.ndarray) -> np.ndarray:
        """Computes a convolution, and rearranges its channels to twice the rows and columns."""
        made = self.convolution(x)
        rows, columns, channels = made.shape
        made = made.reshape(rows, columns, 2, 2, channels // 4).transpose(0, 2, 1, 3, 4)
        return made.reshape(2 * rows, 2 * columns, channels // 4)


# --- Models ---------------------------------------------------------------------------------------

_AROUND_MEAN = ("ms_hyper_zero", "charm_zero", "elic_sm_zero", "elic_zero")
_SERIAL = ("ms_context", "cheng_anchor", "cheng_attn")
_DEFAULT_N = dict.fromkeys(("ms_context", "charm", "charm_zero", "elic_sm_zero", "elic_zero"), 192)
_DEFAULT_M = dict.fromkeys(("charm", "charm_zero", "elic_sm_zero", "elic_zero"), 320)


@dataclasses.dataclass
class Decoded:
    """A decoded file.

    Attributes:
      header: the result of `header_of`.
      symbols: latent's name -> integers, [h, w, C].
      y_hat: [h, w, M] float32.
      scaled: [h, w, M] float32, y_hat times the inverse gain; y_hat in a model with one rate.
      escapes: number of integers outside the window of their row, or beyond the first range of
        distances.
    """

    header: dict
    symbols: dict
    y_hat: np.ndarray
    scaled: np.ndarray
    escapes: int


def _weights(data: bytes) -> list:
    """Returns the (name, array) pairs of `weights.tfqw`."""
    assert data[:8] == b"\x89TFQW\r\n\x01"
    start = 12 + struct.unpack_from("<I", data, 8)[0]
    found = []
    for tensor in json.loads(data[12:start])["tensors"]:
        streams = []
        for size in tensor["sizes"]:
            streams.append(zlib.decompress(data[start : start + size]))
            start += size
        array = np.frombuffer(streams[0], "<f4")
        if tensor["encoding"] == "integers":
            low, middle, high = (np.frombuffer(stream, np.uint8) for stream in streams[1:])
            low = np.stack([low & 15, low >> 4], axis=-1).reshape(-1)[: middle.size]
            q = (high.astype(int) << 12 | middle.astype(int) << 4 | low) - 0x8800
            steps = np.ones(len(tensor["shape"]), int)
            steps[tensor["axis"]] = -1
            array = q.reshape(tensor["shape"]).astype(f4) * array.reshape(steps)
        found.append((tensor["name"], array.reshape(tensor["shape"])))
    return found


class Model:
    """A packed model.

    Args:
      folder: with tfquant.json, tables.npz, weights.tfqw and, for files of version 2, integers.npz.
    """

    def __init__(self, folder: Path):
        manifest = json.loads((folder / "tfquant.json").read_text())
        self._fingerprint, self._name = manifest["fingerprint"], manifest["codec"]
        self._experiment = manifest["experiment"]
        options = self._experiment["codec_options"]
        self._n = options.get("N", _DEFAULT_N.get(self._name, 128))
        default = self._n if self._name.startswith("cheng") else 192
        self._m = options.get("M", _DEFAULT_M.get(self._name, default))
        self._slices = options.get("slices", 10)
        default = "mixture" if self._name.startswith("cheng") else "gaussian"
        self._family = options.get("family", default)
        with np.load(folder / "tables.npz") as tables:
            self._tables = {name: Table(tables[name].tobytes()) for name in tables.files}
        weights = _weights((folder / "weights.tfqw").read_bytes())
        named = {name.partition(":")[0]: array for name, array in weights}
        self._medians, self._bound = named["medians"], named.get("sigma_bound")
        self._log_factors = named.get("inverse_gain/log_factors")
        self._layers = {}
        if self._name != "factorized":
            self._set_layers(weights, (folder / "integers.npz").read_bytes())

    def _set_layers(self, weights: list, integers: bytes) -> None:
        """Finds the layers by the order of the weights and the numbers of the exponents."""
        order = [f"h_s/{number}" for number in range(3)]
        if self._name.startswith("cheng"):
            order = [f"h_s/{number}" for number in (0, 3, 1, 4, 2)]
        if self._name in _SERIAL:
            order += [f"context/{number}" for number in range(4)]
        elif self._name.startswith("charm"):
            order = [f"h_s_{which}/{i}" for which in ("mean", "scale") for i in range(3)]
            order += [f"context/{number}" for number in range(6 * self._slices)]
        elif self._name.startswith("elic"):
            channel = [3 * k + 2 + i for k in range(1, 5) for i in range(3)]
            parameters = [17 + 3 * k + i for k in range(5) for i in range(3)]
            order += [f"context/{number}" for number in (*channel, *range(5), *parameters)]
        others = ("/g_a/", "/g_s/", "/gain/", "/inverse_gain/", "/rectifier/")
        arrays = [a for name, a in weights if not any(part in f"/{name}" for part in others)]
        arrays = arrays[len(arrays) - 2 * len(order) :]
        with np.load(io.BytesIO(integers)) as file:
            for key, kernel, bias in zip(order, arrays[::2], arrays[1::2]):
                fields = ("inputs", "low", "high", "outputs", "groups")
                parts = {field: file[f"{key}/{field}"] for field in fields}
                self._layers[key] = Layer(kernel, bias, parts)

    def read(self, data: bytes) -> Decoded:
        """Decodes a file. An AssertionError says that it is damaged or of another model."""
        header = header_of(data)
        assert (header["codec"], header["fingerprint"]) == (self._name, self._fingerprint)
        step = 16 if self._name == "factorized" else 64
        blocks = [-(-header[side] // step) for side in ("height", "width")]
        self._shape = tuple(side * step // 16 for side in blocks)
        self._escapes = 0
        streams = header["streams"]
        symbols = {}
        if self._name == "factorized":
            symbols["y"] = self._channels("y", streams, self._shape)
            y_hat = symbols["y"].astype(f4) + self._medians
        else:
            symbols["z"] = self._channels("z", streams[:1], blocks)
            z_hat = symbols["z"].astype(f4) + self._medians
            several = self._name in ("scale_hyperprior", "ms_hyper", "ms_hyper_zero")
            rest = streams[1:] if several else [b"".join(streams[1:])]
            assert rest
            self._streams = [Stream(stream) for stream in rest]
            symbols["y"], y_hat = self._transmitted(z_hat)
        content = b"".join(latent.astype("<i4").tobytes() for latent in symbols.values())
        assert zlib.crc32(content) == header["symbols"]
        scaled = y_hat * self._inverse_gain(header["quality"])
        return Decoded(header, symbols, y_hat, scaled, self._escapes)

    def _channels(self, name: str, streams: list, sides) -> np.ndarray:
        """Returns a latent whose row is the channel, [h, w, C]."""
        table = self._tables[name]
        rows = np.tile(np.arange(len(table.rows)), sides[0] * sides[1])
        values, escapes = in_windows([Stream(stream) for stream in streams], table, rows)
        self._escapes += escapes
        return values.reshape(*sides, -1)

    def _inverse_gain(self, stored: int) -> np.ndarray:
        """Returns the factors of all channels; 1 for a model with one rate."""
        experiment = self._experiment
        if not experiment.get("lmbda_range"):
            assert stored == 0
            return np.ones(self._m, f4)
        divisor = 1270 if experiment["distortion"] == "ms_ssim" else 1

        def q(lmbda: float) -> float:
            return 10 + 15 * math.log2(lmbda / divisor / 0.0018)

        def steps(quality: float) -> int:
            return round(256 * min(max(quality, 0), 100))

        start, end = map(q, experiment["lmbda_range"])
        least, most = max(steps(start), 1), max(steps(end), 1)
        assert stored == 0 or least <= stored <= most
        quality = min(max(stored or steps(q(experiment["lmbda"])), least), most) / 256
        level = min(max((quality - start) / (end - start), 0), 1)
        rows = self._log_factors
        position = level * (len(rows) - 1)
        below = min(int(position), len(rows) - 2)
        share = position - below
        return np.exp((1 - share) * rows[below] + share * rows[below + 1]).astype(f4)

    def _part(self, parameters: np.ndarray) -> tuple:
        """Reads a part with the given parameters, [n, blocks * C].

        Returns:
          The integers and the values that they come back as, [n, C] both.
        """
        table, blocks = self._tables["y"], {"mixture": 9, "gaussian": 2, "laplacian": 2}
        count = 1 if self._name == "scale_hyperprior" else blocks[self._family]
        channels = parameters.shape[-1] // count
        *others, log_sigma = np.split(
            np.ascontiguousarray(parameters), [channels * i for i in range(1, count)], axis=-1
        )
        others, mean = [each.ravel() for each in others], f4(0)
        around_mean = self._name in _AROUND_MEAN
        if table.kind == "DecisionTable":
            logits, mu = np.stack(others[:3]), np.stack(others[3:6])
            sigma = np.stack([self._sigma(each) for each in (*others[6:], log_sigma.ravel())])
            decisions = Decisions(self._streams, table.rows, logits, mu, sigma, around_mean)
            values, escapes = decisions.values()
            weight = exp(logits - logits.max(0))
            mean = total(weight / total(weight) * mu)
        elif table.kind == "ScaleTable":
            rows = table.scale_rows(self._sigma(log_sigma.ravel()))
            values, escapes = in_windows(self._streams, table, rows)
            mean = others[0] if others else mean
        else:
            rows, centre, direction = table.mean_rows(others[0], self._sigma(log_sigma.ravel()))
            values, escapes = in_windows(self._streams, table, rows)
            values = centre.astype(np.int64) + direction * values
        self._escapes += escapes
        returned = values.astype(f4) + mean if around_mean else values.astype(f4)
        return values.reshape(-1, channels), returned.reshape(-1, channels)

    def _sigma(self, log_sigma: np.ndarray) -> np.ndarray:
        return np.maximum(exp(np.minimum(log_sigma, f4(math.log(256)))), self._bound)

    def _transmitted(self, z_hat: np.ndarray) -> tuple:
        """Returns the symbols of y and y_hat, [h, w, M] both."""
        if self._name.startswith("charm"):
            return self._slices_of_y(z_hat)
        features = self._h_s(z_hat)
        if self._name in _SERIAL:
            return self._fronts(features)
        if self._name.startswith("elic"):
            return self._groups(features)
        both = self._part(features.reshape(-1, features.shape[-1]))
        return tuple(each.reshape(*self._shape, self._m) for each in both)

    def _h_s(self, x: np.ndarray, name: str = "h_s") -> np.ndarray:
        layer = [self._layers.get(f"{name}/{number}") for number in range(5)]
        if self._name.startswith("cheng"):
            x = leaky(layer[3].up(leaky(layer[0].convolution(x))))
            x = leaky(layer[4].up(leaky(layer[1].convolution(x))))
            return layer[2].convolution(x)
        act = leaky if self._name in ("ms_hyper", "ms_hyper_zero", "ms_context") else relu
        x = act(layer[1].transposed(act(layer[0].transposed(x))))
        return layer[2].convolution(x)

    def _chain(self, x: np.ndarray, first: int) -> np.ndarray:
        """Applies three convolutions of the context, the first with this number."""
        for number in range(first, first + 3):
            x = self._layers[f"context/{number}"].convolution(x)
            x = relu(x) if number < first + 2 else x
        return x

    def _fronts(self, features: np.ndarray) -> tuple:
        rows, columns = self._shape
        symbols = np.zeros((rows, columns, self._m), np.int64)
        for front in range(columns + 3 * (rows - 1)):
            places = [(r, front - 3 * r) for r in range(rows) if 0 <= front - 3 * r < columns]
            seen = self._layers["context/0"].some_taps(symbols.astype(f4), range(12))
            x = np.stack([np.concatenate([features[place], seen[place]]) for place in places])
            x = leaky(self._layers["context/1"].dense(x))
            x = leaky(self._layers["context/2"].dense(x))
            values, _ = self._part(self._layers["context/3"].dense(x))
            for place, value in zip(places, values):
                symbols[place] = value
        return symbols, symbols.astype(f4)

    def _slices_of_y(self, z_hat: np.ndarray) -> tuple:
        features = [relu(self._h_s(z_hat, f"h_s_{which}")) for which in ("mean", "scale")]
        symbols, decoded = [], []
        for k in range(self._slices):
            firsts = (3 * k, 3 * (self._slices + k))
            parameters = np.concatenate(
                [
                    self._chain(np.concatenate([feature, *decoded[:5]], axis=-1), first)
                    for feature, first in zip(features, firsts)
                ],
                axis=-1,
            )
            both = self._part(parameters.reshape(-1, parameters.shape[-1]))
            for latent, part in zip((symbols, decoded), both):
                latent.append(part.reshape(*self._shape, -1))
        return np.concatenate(symbols, axis=-1), np.concatenate(decoded, axis=-1)

    def _groups(self, features: np.ndarray) -> tuple:
        unit = min(16, self._m // 12)
        anchors = np.add.outer(*map(np.arange, self._shape)) % 2 == 0
        symbols, decoded = [], []
        for k, size in enumerate((unit, unit, 2 * unit, 4 * unit, self._m - 8 * unit)):
            seen = [features]
            if k:
                seen.append(self._chain(np.concatenate(decoded, axis=-1), 3 * k + 2))
            values = np.zeros((*self._shape, size), np.int64)
            returned, neighbours = (
                np.zeros(values.shape, f4),
                np.zeros((*self._shape, 2 * size), f4),
            )
            for mask in (anchors, ~anchors):
                parameters = self._chain(np.concatenate([*seen, neighbours], axis=-1), 17 + 3 * k)
                values[mask], returned[mask] = self._part(parameters[mask])
                if mask is anchors:
                    layer = self._layers[f"context/{k}"]
                    neighbours = layer.some_taps(returned, range(1, 25, 2))
            symbols.append(values)
            decoded.append(returned)
        return np.concatenate(symbols, axis=-1), np.concatenate(decoded, axis=-1)
