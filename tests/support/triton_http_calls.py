"""Calls of Triton's own HTTP client to a server, in a process of their own because its stubs have the names of ours.

    python -m tests.support.triton_http_calls sync|asyncio ADDRESS

Ends with exit code 0 if all responses were as expected.
"""

import asyncio
import sys
from functools import partial

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio

from tests.support import triton_calls
from tests.support.triton_calls import COLOURS, SEEN, encoded, image_inputs, pixel_inputs

images = partial(image_inputs, triton.InferInput)
pixels = partial(pixel_inputs, triton.InferInput)
rejected = partial(triton_calls.rejected, status="400")


def outputs(
    *, binary: bool, names: tuple[str, ...] = ("probabilities", "labels", "scores", "tokens", "views")
) -> object:
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in names]


def check(result: triton.InferResult, *colours: str, views: int = 1) -> None:
    probabilities = result.as_numpy("probabilities")
    assert probabilities.dtype == np.float32
    assert [COLOURS[k] for k in probabilities.argmax(1)] == [*colours]
    labels = [each.decode() if isinstance(each, bytes) else each for each in result.as_numpy("labels")[:, 0]]
    assert labels == [*colours]
    np.testing.assert_allclose(result.as_numpy("scores")[:, 0], probabilities.max(1), rtol=1e-6)
    assert result.as_numpy("views").tolist() == [views] * len(colours)
    assert len({str(token) for token in result.as_numpy("tokens")}) == len(colours)


def sync(address: str) -> None:
    with triton.InferenceServerClient(address, concurrency=4) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("colours")
        assert client.is_model_ready("colours", "1")
        assert not client.is_model_ready("colours", "7")
        assert client.get_server_metadata()["name"] == "pawserve"
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        metadata = client.get_model_metadata("colours")
        assert metadata["versions"] == ["1"]
        assert {i["name"]: (i["datatype"], i["shape"]) for i in metadata["inputs"]} == {
            "images": ("BYTES", [-1]),
            "pixels": ("UINT8", [-1, -1, -1, 3]),
        }
        assert client.get_model_config("colours", "1")["max_batch_size"] == 64
        assert [(each["name"], each["version"], each["state"]) for each in client.get_model_repository_index()] == [
            ("colours", "1", "READY")
        ]

        good = images(encoded("red"), encoded("blue"))
        check(client.infer("colours", good, request_id="seven", parameters={"views": 3}), "red", "blue", views=3)
        assert client.infer("colours", good, request_id="seven").get_response()["id"] == "seven"
        for binary in (True, False):
            check(client.infer("colours", good, outputs=outputs(binary=binary)), "red", "blue")
            check(client.infer("colours", pixels("red", "green", binary_data=binary)), "red", "green")
        for algorithm in ("gzip", "deflate"):
            compressed = client.infer(
                "colours",
                good,
                request_compression_algorithm=algorithm,
                response_compression_algorithm=algorithm,
            )
            check(compressed, "red", "blue")
        pending = [client.async_infer("colours", good, model_version="1") for _ in range(4)]
        for request in pending:
            check(request.get_result(), "red", "blue")

        wanted = [triton.InferRequestedOutput("probabilities", class_count=2), triton.InferRequestedOutput("views")]
        result = client.infer("colours", images(encoded("green")), outputs=wanted)
        assert [output["name"] for output in result.get_response()["outputs"]] == ["probabilities", "views"]
        first = result.as_numpy("probabilities")[0, 0].decode()
        assert first.split(":")[1:] == ["1", "green"]
        client.infer("colours", good, sequence_id=5, sequence_start=True, sequence_end=True, priority=1, timeout=10**7)

        statistics = client.get_inference_statistics("colours")["model_stats"][0]
        assert statistics["inference_count"] >= 20
        assert client.get_inference_statistics()["model_stats"] == [statistics]

        rejected(lambda: client.infer("colours", images(encoded("red"), b"I am a cat")), "image 1", "not an image")
        rejected(lambda: client.infer("colours", good, parameters={"views": 1000}), "views is 1000")
        rejected(lambda: client.infer("colours", good, parameters={"purpose": "none"}), "purpose", "top_k")
        rejected(lambda: client.infer("cars", good), "models/cars", status="404")
        rejected(lambda: client.infer("colours", good, model_version="latest"), "latest")
        rejected(lambda: client.infer("colours", images(*[encoded("red")] * 65)), "1 to 64")
        rejected(lambda: client.load_model("cars"), "cars", status="404")
        rejected(lambda: client.load_model("colours", config="{}"), "config")
        client.unload_model("colours")
        assert not client.is_model_ready("colours")
        rejected(lambda: client.infer("colours", good), status="404")
        rejected(lambda: client.unload_model("colours"), "colours", status="404")
        client.load_model("colours")
        check(client.infer("colours", good), "red", "blue")


async def asynchronous(address: str) -> None:
    async with triton_aio.InferenceServerClient(address) as client:
        assert await client.is_server_ready()
        assert (await client.get_model_metadata("colours"))["platform"] == "pawserve"
        colours = [*SEEN] * 20
        results = await asyncio.gather(
            *(
                client.infer(
                    "colours",
                    images(encoded(colour)),
                    request_id=str(index),
                    request_compression_algorithm=(None, "gzip", "deflate")[index % 3],
                    response_compression_algorithm=(None, "gzip", "deflate")[index // 3 % 3],
                )
                for index, colour in enumerate(colours)
            )
        )
        for index, (colour, result) in enumerate(zip(colours, results, strict=True)):
            assert result.get_response()["id"] == str(index)
            check(result, colour)


if __name__ == "__main__":
    how, server = sys.argv[1:]
    if how == "asyncio":
        asyncio.run(asynchronous(server))
    else:
        sync(server)
