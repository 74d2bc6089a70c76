"""The two flavours of an exported model: in the graph, in other processes, behind a server."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
import types
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import saved_model_pb2

from tfquant import exact, models, stack
from tfquant.coding import container
from tfquant.evaluation.models import find_models
from tfquant.export import stock
from tfquant.export.codec_module import CodecModule, EagerModule
from tfquant.export.manifest_file import ModelError
from tfquant.export.model_file import ExportedModel
from tfquant.legacy_keras import keras

ROOT = Path(__file__).resolve().parents[2]
SIZES = [(32, 48), (17, 33), (1, 1)]

SLOW_FIXTURES = {"export"}


@pytest.fixture(scope="module", name="model")
def _model(saved):
    return saved


@pytest.fixture(scope="module", name="full")
def _full(saved, operations_module):
    del operations_module  # the full SavedModel needs the coder's operations
    return saved._functions.signatures


@pytest.fixture(scope="module", name="stock")
def _stock(export):
    return tf.saved_model.load(str(export / "stock")).signatures


@pytest.fixture(scope="module", name="pictures")
def _pictures(make_photograph):
    """`pictures(size)`: three pictures, [3, H, W, 3] uint8."""
    return lambda size: np.stack([make_photograph(*size, seed) for seed in range(3)])


def sides(pictures):
    count, height, width, _ = pictures.shape
    return {"height": tf.fill([count], height), "width": tf.fill([count], width)}


def test_a_batch_in_the_graph_gives_the_files_of_the_command_line(model, full, pictures):
    for size in SIZES:
        images = pictures(size)
        files = [model.compress(image) for image in images]
        assert list(full["compress"](images=tf.constant(images))["tfq_bytes"].numpy()) == files
        alone = [full["compress_one"](image=tf.constant(image))["tfq_bytes"] for image in images]
        assert [file.numpy() for file in alone] == files

        expected = [model.decompress(file) for file in files]
        found = full["decompress"](tfq_bytes=tf.constant(files))["images"]
        np.testing.assert_array_equal(found, expected)
        for file, image in zip(files, expected):
            found = full["decompress_one"](tfq_bytes=tf.constant(file))["image"]
            np.testing.assert_array_equal(found, image)


def test_stock_transforms_and_full_coding_make_the_same_files(model, full, stock, pictures):
    for size in SIZES:
        images = pictures(size)
        files = [model.compress(image) for image in images]
        y = stock["analyze"](images=tf.constant(images))["y"]
        coded = full["encode_latent"](y=y, **sides(images))
        assert list(coded["tfq_bytes"].numpy()) == files
        latent = full["decode_latent"](tfq_bytes=tf.constant(files))
        found = stock["synthesize"](**latent)["images"]
        np.testing.assert_array_equal(found, [model.decompress(file) for file in files])


def test_stock_reconstructs_what_a_decoder_gives_and_counts_its_bits(model, stock, pictures):
    for size in SIZES:
        images = pictures(size)
        found = stock["reconstruct"](images=tf.constant(images))
        evaluated = [model.evaluate(image) for image in images]
        np.testing.assert_array_equal(found["images"], [e["image"] for e in evaluated])
        np.testing.assert_array_equal(found["bits"], np.float32([e["bits"] for e in evaluated]))
        assert found["rate_map"].shape == images.shape[:3]
        np.testing.assert_allclose(np.sum(found["rate_map"], (1, 2)), found["bits"], rtol=1e-5)


@pytest.mark.parametrize("size", [(70, 37), (64, 128), (1, 1), (16, 65)])
def test_the_rate_map_assigns_bits_to_the_pixels_of_their_elements(size):
    """Compares with loops over elements and pixels."""
    height, width = size
    downs = {"y": 16, "z": 64}
    padded = [-(-side // 64) * 64 for side in size]
    rng = np.random.default_rng(0)
    bits = {
        name: rng.uniform(0, 9, (1, padded[0] // down, padded[1] // down, 4)).astype(np.float32)
        for name, down in downs.items()
    }
    expected = np.zeros(size)
    for name, down in downs.items():
        for place in np.ndindex(bits[name].shape[1:3]):
            row, column = (min(i, (side - 1) // down) * down for i, side in zip(place, size))
            cell = expected[row : row + down, column : column + down]
            cell += bits[name][0][place].sum() / cell.size
    codec = types.SimpleNamespace(
        latent_channels=lambda: {name: (down, 4) for name, down in downs.items()}
    )
    exchange = types.SimpleNamespace(bits={name: tf.constant(b) for name, b in bits.items()})
    found = stock.rate_map(codec, exchange, tf.constant(height), tf.constant(width))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_errors_have_the_messages_of_the_command_line(model, full, pictures):
    images = pictures((17, 33))
    data = model.compress(images[0])
    whole = container.Bitstream.from_bytes(data)
    wrong = [b"", b"GIF89a" + bytes(60), data[:20], data[:-1], data + b"\0",
             data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]]  # fmt: skip
    fields = [{"fingerprint": "0" * 16}, {"codec": "charm"}, {"height": 1 << 30},
              {"symbols_crc": whole.symbols_crc ^ 1}, {"version": 1}, {"quality": 50.0},
              {"height": 1, "width": 40_000}]  # fmt: skip
    wrong += [dataclasses.replace(whole, **field).to_bytes() for field in fields]
    for file in wrong:
        with pytest.raises(container.BitstreamError) as said:
            model.decompress(file)
        words = str(said.value).split("cannot be decoded: ")[-1]
        for batch in ([file], [data, file]):
            with pytest.raises(tf.errors.InvalidArgumentError) as caught:
                full["decompress"](tfq_bytes=tf.constant(batch))
            assert f"[{words}]" in caught.value.message
        with pytest.raises(tf.errors.InvalidArgumentError, match=re.escape(words)):
            full["decode_latent"](tfq_bytes=tf.constant([file]))


def test_inconsistent_inputs_are_rejected(model, full, stock, pictures):
    files = [model.compress(pictures(size)[0]) for size in SIZES[:2]]
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="one batch has files of 48x32 and 33x17 pixels"
    ):
        full["decompress"](tfq_bytes=tf.constant(files))
    images = pictures(SIZES[1])
    y = stock["analyze"](images=tf.constant(images))["y"]
    message = re.escape(
        "y has 4x4 elements; a picture of 33x170 pixels (width x height) needs 4x12"
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        full["encode_latent"](y=y, height=tf.fill([3], 170), width=tf.fill([3], 33))
    message = re.escape("a picture of -33x17 pixels (width x height); a side has at least 1")
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        full["encode_latent"](y=y, height=tf.fill([3], 17), width=tf.fill([3], -33))


@pytest.mark.parametrize("height, width", [(0, 5), (4, 0), (0, 0)])
def test_pictures_without_pixels_are_rejected(full, stock, height, width):
    message = re.escape(f"a picture of {width}x{height} pixels (width x height)")
    images = tf.zeros([1, height, width, 3], tf.uint8)
    for function in (full["compress"], stock["analyze"], stock["reconstruct"]):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            function(images=images)


@pytest.mark.parametrize("height, width", [(1, 40_000), (40_000, 1), (1025, 1024)])
def test_the_limit_of_the_export_holds_in_every_signature(model, full, stock, height, width):
    """The fixture's model has a limit of 2**20 pixels."""
    size = f"{width}x{height}"
    limit = rf"{size} .*more than .*1048576.*: raise max_pixels .*tfquant export --max_pixels"
    images = tf.zeros([1, height, width, 3], tf.uint8)
    for function in (full["compress"], stock["analyze"], stock["reconstruct"]):
        with pytest.raises(tf.errors.InvalidArgumentError, match=limit):
            function(images=images)
    with pytest.raises(tf.errors.InvalidArgumentError, match=limit):
        full["compress_one"](image=images[0])
    rows, columns = (-(-side // 64) * 4 for side in (height, width))
    latent, inputs = tf.zeros([1, rows, columns, 12]), {"height": [height], "width": [width]}
    with pytest.raises(tf.errors.InvalidArgumentError, match=limit):
        full["encode_latent"](y=latent, **inputs)
    with pytest.raises(tf.errors.InvalidArgumentError, match=limit):
        stock["synthesize"](y_hat=latent, **inputs)
    file = container.Bitstream.from_bytes(model.compress(np.zeros((4, 4, 3), np.uint8)))
    forged = dataclasses.replace(file, height=height, width=width).to_bytes()
    for name in ("decompress", "decode_latent"):
        with pytest.raises(tf.errors.InvalidArgumentError, match=limit):
            full[name](tfq_bytes=tf.constant([forged]))
    with pytest.raises(tf.errors.InvalidArgumentError, match=limit):
        full["decompress_one"](tfq_bytes=tf.constant(forged))


@pytest.fixture(scope="module", name="operations")
def _operations(nodes_of):
    """`operations(path)`: names of all operations in a SavedModel, including its functions."""

    def names(path):
        saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
        graph = saved.meta_graphs[0].graph_def
        functions = {f.signature.name for f in graph.library.function}
        return {node.op for node in nodes_of(graph)} - functions

    return names


# Uses the stock flavour before it imports the coder's operations, and the full one afterwards.
IN_ANOTHER_PROCESS = """
    import contextlib, importlib, io, json, sys
    import numpy as np, tensorflow as tf
    from tensorflow.python.framework import op_def_registry
    from tensorflow.python.tools import saved_model_cli

    full, out, used, operations = sys.argv[1:]
    pictures, found = out + "/pictures.npy", {}
    images = tf.constant(np.load(pictures))

    def cli(*arguments):
        sys.argv[1:] = arguments
        with contextlib.redirect_stdout(io.StringIO()) as said:
            try:
                saved_model_cli.main()
            except SystemExit as end:
                assert not end.code, end
        return said.getvalue()

    def run(folder, signature):
        cli("run", "--dir", folder, "--tag_set", "serve", "--inputs", "images=" + pictures,
            "--signature_def", signature, "--outdir", out + "/" + signature)

    found["unknown"] = [
        [op for op in ops if not op_def_registry.get(op)] for ops in json.loads(used)
    ]
    stock = tf.saved_model.load(full + "/stock")
    found["bits"] = stock.signatures["reconstruct"](images=images)["bits"].numpy().tolist()
    found["stock shown"] = cli("show", "--dir", full + "/stock", "--all")
    run(full + "/stock", "reconstruct")
    found["compression"] = [m for m in sys.modules if m.startswith("tensorflow_compression")]

    if operations:
        importlib.import_module(operations)
        model = tf.saved_model.load(full)
        files = model.signatures["compress"](images=images)["tfq_bytes"]
        np.save(out + "/decoded.npy", model.signatures["decompress"](tfq_bytes=files)["images"])
        found["files"] = [file.hex() for file in files.numpy()]
        try:
            model.decompress_one(files[0] + b"!")
        except tf.errors.InvalidArgumentError as error:
            found["refusal"] = error.message
        found["full shown"] = cli("show", "--dir", full, "--all")
        run(full, "compress")
    found["ours"] = [m for m in sys.modules if m.startswith(("tfquant", "models"))]
    print(json.dumps(found))
"""


@pytest.fixture(scope="module", name="elsewhere")
def _elsewhere(export, operations, pictures, tmp_path_factory, fresh_python):
    """The results of a process that knows only TensorFlow, and the folder of its files."""
    folder = tmp_path_factory.mktemp("elsewhere")
    np.save(folder / "pictures.npy", pictures((17, 33)))
    used = json.dumps([sorted(operations(path)) for path in (export / "stock", export)])
    has_coder = stack.coder().kind == stack.OPERATIONS
    coder = stack.operations_module() if has_coder else ""
    said = fresh_python(IN_ANOTHER_PROCESS, str(export), str(folder), used, coder)
    return json.loads(said.splitlines()[-1]), folder


def test_full_works_in_a_process_that_knows_only_tensorflow(
    elsewhere, model, pictures, operations_module
):
    del operations_module  # the full SavedModel needs the coder's operations
    found, folder = elsewhere
    expected = [model.compress(image) for image in pictures((17, 33))]
    assert found["files"] == [file.hex() for file in expected]
    (refusal,) = (line for line in found["refusal"].splitlines() if "assertion" in line)
    assert "1 bytes too many: the file has" in refusal
    assert found["ours"] == []
    decoded = np.load(folder / "decoded.npy")
    np.testing.assert_array_equal(decoded, [model.decompress(file) for file in expected])


def test_stock_consists_of_standard_operations(elsewhere, export, stock, pictures, operations):
    """Compares by name in a process without TFC, and runs the model there."""
    found, _ = elsewhere
    in_stock, in_full = found["unknown"]
    has_coder = stack.coder().kind == stack.OPERATIONS
    assert in_stock == [] and ("EntropyEncodeIndex" in in_full) == has_coder
    expected = stock["reconstruct"](images=tf.constant(pictures((17, 33))))["bits"]
    np.testing.assert_allclose(found["bits"], expected, rtol=1e-6)
    assert found["compression"] == []
    assert not {op for op in operations(export / "stock") if "PyFunc" in op}


def test_the_model_describes_itself(export, full, stock, model, shared):
    for flavour, signatures in (("full", full), ("stock", stock)):
        folder = export if flavour == "full" else export / "stock"
        manifest = json.loads((folder / "tfquant.json").read_text())
        assert json.loads(signatures["about"]()["manifest"].numpy()) == manifest
        assert manifest["flavour"] == flavour and manifest["metrics"] == shared.metrics
        assert manifest["fingerprint"] == model.fingerprint
        assert manifest["experiment"]["codec_options"] == {"N": 8, "M": 12}
    assert model.manifest.metrics == shared.metrics


def test_programs_load_only_the_full_flavour(export):
    assert [entry.path for entry in find_models([export.parent])] == [str(export)]
    with pytest.raises(ModelError, match="stock: this is the stock flavour of a model"):
        ExportedModel.load(export / "stock")


def test_saved_model_cli_shows_and_runs_both(elsewhere, model, pictures, operations_module):
    del operations_module  # the full SavedModel needs the coder's operations
    found, folder = elsewhere
    images = pictures((17, 33))
    for name in ("analyze", "synthesize", "reconstruct", "about"):
        assert f"signature_def['{name}']" in found["stock shown"]
    assert np.load(folder / "reconstruct" / "images.npy").shape == images.shape
    assert np.load(folder / "reconstruct" / "rate_map.npy").shape == images.shape[:3]
    for name in ("compress", "decompress", "encode_latent", "decode_latent", "about"):
        assert f"signature_def['{name}']" in found["full shown"]
    files = np.load(folder / "compress" / "tfq_bytes.npy", allow_pickle=True)
    assert [bytes(file) for file in files] == [model.compress(image) for image in images]


def blocks(language):
    """The code blocks of `docs/serving.md`, in order."""
    text = (ROOT / "docs" / "serving.md").read_text()
    text = text.replace("tensorflow_compression_ops", stack.operations_module() or "")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def tensors(signature, inputs: dict) -> dict:
    """Converts JSON columns to tensors of the signature's types. Raises AssertionError for a
    mismatch.
    """
    specs = signature.structured_input_signature[1]
    assert set(inputs) == set(specs)
    found = {}
    for name, value in inputs.items():
        array = np.array(value)
        if specs[name].dtype.is_integer:
            assert array.dtype.kind == "i"
            assert specs[name].dtype.min <= array.min() <= array.max() <= specs[name].dtype.max
        assert specs[name].shape.is_compatible_with(array.shape), (name, array.shape)
        found[name] = tf.constant(array, specs[name].dtype)
    return found


def rest_answer(stock, body: dict) -> dict:
    """Returns the answer of TensorFlow Serving's REST interface to a predict request."""
    signature = stock[body["signature_name"]]
    if "instances" in body:
        rows = body["instances"]
        outputs = signature(**tensors(signature, {k: [r[k] for r in rows] for k in rows[0]}))
        values = [{k: v[i].numpy().tolist() for k, v in outputs.items()} for i in range(len(rows))]
        return {"predictions": [v if len(v) > 1 else next(iter(v.values())) for v in values]}
    outputs = signature(**tensors(signature, body["inputs"]))
    columns = {name: value.numpy().tolist() for name, value in outputs.items()}
    return {"outputs": columns if len(columns) > 1 else next(iter(columns.values()))}


def test_the_documented_requests_fit_their_signatures(stock):
    requests = [json.loads(block) for block in blocks("json")]
    first, second = (rest_answer(stock, request) for request in requests)
    assert set(first["outputs"]) == {"images", "bits", "rate_map"}
    assert np.shape(first["outputs"]["images"]) == (1, 2, 2, 3)
    assert np.shape(second["predictions"]) == (1, 4, 4, 12)


@pytest.fixture(name="rest_server")
def _rest_server(stock):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            assert self.path == "/v1/models/tfquant:predict"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps(rest_answer(stock, body)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module", name="predict_messages")
def _predict_messages():
    """`PredictRequest` and `PredictResponse` of TensorFlow Serving's predict.proto."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="predict.proto", package="tensorflow.serving", syntax="proto3",
        dependency=[tensor_pb2.DESCRIPTOR.name],
    )  # fmt: skip

    def message(name, *fields):
        made = file.message_type.add(name=name)
        for field_name, number, kind, type_name, label in fields:
            made.field.add(
                name=field_name, number=number, type=kind, type_name=type_name, label=label
            )
        return made

    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    text, sub = field.TYPE_STRING, field.TYPE_MESSAGE
    message("ModelSpec", ("name", 1, text, None, one), ("signature_name", 3, text, None, one))
    spec = ".tensorflow.serving.ModelSpec"
    for name, number, tensors_name, spec_number in (
        ("PredictRequest", 2, "inputs", 1),
        ("PredictResponse", 1, "outputs", 2),
    ):
        entry = f".tensorflow.serving.{name}.{tensors_name.title()}Entry"
        made = message(
            name,
            ("model_spec", spec_number, sub, spec, one),
            (tensors_name, number, sub, entry, many),
        )
        pair = made.nested_type.add(name=f"{tensors_name.title()}Entry")
        pair.options.map_entry = True
        pair.field.add(name="key", number=1, type=text, label=one)
        tensor = ".tensorflow.TensorProto"
        pair.field.add(name="value", number=2, type=sub, type_name=tensor, label=one)
    pool = descriptor_pool.Default()
    pool.Add(file)
    return [
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.serving.{name}"))
        for name in ("PredictRequest", "PredictResponse")
    ]


_METHOD = "/tensorflow.serving.PredictionService/Predict"


@pytest.fixture(name="grpc_server")
def _grpc_server(stock, predict_messages):
    grpc = pytest.importorskip("grpc")
    request_type, response_type = predict_messages

    def predict(request, context):
        signature = stock[request.model_spec.signature_name]
        specs = signature.structured_input_signature[1]
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        assert {n: v.dtype for n, v in inputs.items()} == {
            n: s.dtype.as_numpy_dtype for n, s in specs.items()
        }
        response = response_type()
        for name, value in signature(**{n: tf.constant(v) for n, v in inputs.items()}).items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response

    handler = grpc.unary_unary_rpc_method_handler(
        predict, request_type.FromString, response_type.SerializeToString
    )
    _, service, method = _METHOD.split("/")
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture(name="clients")
def _clients(monkeypatch, predict_messages):
    """The documented clients; `tensorflow_serving` is a substitute for tensorflow-serving-api."""
    request_type, response_type = predict_messages

    class PredictionServiceStub:
        def __init__(self, channel):
            self.Predict = channel.unary_unary(
                _METHOD, request_type.SerializeToString, response_type.FromString
            )

    apis = types.ModuleType("tensorflow_serving.apis")
    apis.predict_pb2 = types.SimpleNamespace(PredictRequest=request_type)
    apis.prediction_service_pb2_grpc = types.SimpleNamespace(
        PredictionServiceStub=PredictionServiceStub
    )
    monkeypatch.setitem(sys.modules, "tensorflow_serving", types.ModuleType("tensorflow_serving"))
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", apis)
    namespace = {}
    for block in blocks("python")[1:]:
        exec(block, namespace)
    return namespace


@pytest.mark.parametrize("kind", ["rest", "grpc"])
def test_the_documented_clients_finish_the_range_coding(
    kind, request, operations_module, clients, export, model, pictures, loaded_already
):
    del operations_module  # the clients call the coder
    server = request.getfixturevalue(f"{kind}_server")
    client = clients[f"{kind.title()}Client"](str(export), server)
    images = pictures((17, 33))
    files = client.compress(images)
    assert files == [model.compress(image) for image in images]
    expected = [model.decompress(file) for file in files]
    np.testing.assert_array_equal(client.decompress(files), expected)


def test_the_documented_use_of_the_full_flavour_works(
    export, pictures, model, operations_module, loaded_already
):
    del operations_module  # the full SavedModel needs the coder's operations
    code = blocks("python")[0].replace("runs/mine/export", str(export))
    namespace = {"pictures": tf.constant(pictures((17, 33)))}
    exec(code, namespace)
    assert namespace["files"][0].numpy() == model.compress(pictures((17, 33))[0])
    assert namespace["again"].shape == [3, 17, 33, 3]


@pytest.fixture(scope="module", name="reliability")
def _reliability():
    """The module `benchmarks/reliability.py`."""
    namespace = types.ModuleType("reliability")
    exec((ROOT / "benchmarks" / "reliability.py").read_text(), namespace.__dict__)
    return namespace


def test_eight_threads_get_the_bytes_that_one_gets(model, reliability):
    assert reliability.differing(model, 8, SIZES, rounds=8) == 0


def test_memory_stays_within_its_bound_while_sizes_grow_and_shrink(export, reliability):
    """Runs a short form of the benchmark in its own process."""
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "reliability.py", export, "--calls=60",
         "--sides=16,96", "--threads=2", "--bound=8"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 calls" in done.stdout


def test_a_synthesis_of_several_latents_is_refused():
    codec = models.build("factorized", N=4, M=6)
    transforms = stock.Transforms(codec, None, in_graphs=False)
    assert transforms.synthesize(tf.zeros([1, 4, 4, 6]), 50, 64).shape == [50, 64, 3]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[2,4,4,6\]"):
        transforms.synthesize(tf.zeros([2, 4, 4, 6]), 50, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name,options", [("ms_context", {}), ("charm_zero", {"slices": 3})])
def test_other_codecs_give_a_batch_the_bytes_of_each_alone(name, options, pictures):
    """Compares with eager coding, for serial and grouped contexts, without writing an export.

    Both code the same latents with an exact codec, so they have the same bytes on every processor.
    `test_a_batch_in_the_graph_gives_the_files_of_the_command_line` tests a codec without a context.
    It stands last, because setting the seed drops the functions that the tests above have compiled.
    """
    keras.utils.set_random_seed(0)
    codec = models.build(name, N=8, M=12, **options)
    images = pictures((20, 70))
    exact.become_exact(codec, images)
    module = CodecModule(codec)
    eager = EagerModule(codec, module.tables)
    latents = [eager.evaluate(image)["y"] for image in images]
    found = module.encode_latent(tf.concat(latents, 0), **sides(images))["tfq_bytes"].numpy()
    for y, file in zip(latents, found):
        bitstream = container.Bitstream.from_bytes(file)
        alone = eager._write(y)
        assert bitstream.streams == tuple(alone["streams"].numpy())
        assert bitstream.symbols_crc == alone["symbols_crc"].numpy()
        bitstream.check_model(name, module.fingerprint())
