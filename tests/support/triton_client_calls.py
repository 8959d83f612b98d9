"""Calls of Triton's own client to a server, in a process of their own because its stubs have the names of ours.

    python -m tests.support.triton_client_calls sync|asyncio|stream ADDRESS

Ends with exit code 0 if all responses were as expected.
"""

import asyncio
import sys
from functools import partial
from queue import SimpleQueue

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.support import triton_calls
from tests.support.triton_calls import COLOURS, SEEN, encoded, image_inputs, pixel_inputs
from tests.support.waiting import LIMIT_S

images = partial(image_inputs, triton.InferInput)
pixels = partial(pixel_inputs, triton.InferInput)
rejected = partial(triton_calls.rejected, status="StatusCode.INVALID_ARGUMENT")


def sync(address: str) -> None:
    with triton.InferenceServerClient(address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("colours")
        assert client.is_model_ready("colours", "1")
        assert not client.is_model_ready("colours", "7")
        assert not client.is_model_ready("../etc")
        assert client.get_server_metadata().name == "pawserve"
        assert "classification" in client.get_server_metadata().extensions
        metadata = client.get_model_metadata("colours", as_json=True)
        assert metadata["versions"] == ["1"]
        assert {i["name"]: (i["datatype"], i["shape"]) for i in metadata["inputs"]} == {
            "images": ("BYTES", ["-1"]),
            "pixels": ("UINT8", ["-1", "-1", "-1", "3"]),
        }
        assert {o["name"]: o["datatype"] for o in metadata["outputs"]} == {
            "probabilities": "FP32",
            "labels": "BYTES",
            "scores": "FP32",
            "tokens": "BYTES",
            "views": "INT32",
        }
        config = client.get_model_config("colours").config
        assert (config.name, config.max_batch_size, len(config.input)) == ("colours", 64, 2)
        index = client.get_model_repository_index().models
        assert [(model.name, model.version, model.state) for model in index] == [("colours", "1", "READY")]

        for inputs in (
            images(encoded("red"), encoded("blue")),
            images(encoded("red"), encoded("blue"), columns=True),
            pixels("red", "blue"),
        ):
            result = client.infer("colours", inputs, request_id="seven", parameters={"views": 3, "top_k": 2})
            assert result.get_response().id == "seven"
            assert result.get_response().model_version == "1"
            probabilities = result.as_numpy("probabilities")
            assert probabilities.dtype == np.float32
            assert [COLOURS[k] for k in probabilities.argmax(1)] == ["red", "blue"]
            np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
            assert result.as_numpy("labels").shape == (2, 2)
            assert result.as_numpy("labels")[:, 0].tolist() == [b"red", b"blue"]
            np.testing.assert_array_equal(result.as_numpy("scores")[:, 0], probabilities.max(1))
            assert result.as_numpy("views").tolist() == [3, 3]
            assert len(set(result.as_numpy("tokens").tolist())) == 2
        print(result.as_numpy("tokens")[0].decode())  # the parent process records a label for it

        wanted = [triton.InferRequestedOutput("probabilities", class_count=2), triton.InferRequestedOutput("views")]
        result = client.infer("colours", images(encoded("green")), outputs=wanted, parameters={"adaptive": True})
        assert [output.name for output in result.get_response().outputs] == ["probabilities", "views"]
        first, second = result.as_numpy("probabilities")[0].tolist()
        value, place, label = first.decode().split(":")
        assert (place, label) == ("1", "green")
        assert 0.9 < float(value) <= 1
        assert second.decode().split(":")[1] in ("0", "2")

        sequence = {"sequence_id": 5, "sequence_start": True, "sequence_end": True, "priority": 1}
        assert client.infer("colours", pixels("blue"), **sequence).as_numpy("labels")[0, 0] == b"blue"

        statistics = client.get_inference_statistics("colours", as_json=True)["model_stats"][0]
        assert int(statistics["inference_count"]) == 8
        assert int(statistics["inference_stats"]["success"]["count"]) == 5
        assert 5 <= int(statistics["execution_count"]) <= 20

        good = images(encoded("red"))
        rejected(lambda: client.infer("colours", images(encoded("red"), b"I am a cat")), "image 1", "not an image")
        rejected(lambda: client.infer("colours", good, parameters={"views": 1000}), "views is 1000")
        rejected(lambda: client.infer("colours", good, parameters={"purpose": "none"}), "purpose", "top_k")
        rejected(lambda: client.infer("cars", good), "models/cars", status="StatusCode.NOT_FOUND")
        rejected(lambda: client.infer("colours", good, model_version="latest"), "latest")
        rejected(lambda: client.infer("colours", images(*[encoded("red")] * 65)), "1 to 64")
        rejected(lambda: client.load_model("cars"), "cars", status="StatusCode.NOT_FOUND")
        rejected(lambda: client.load_model("../colours"), "NAME")
        rejected(lambda: client.load_model("colours", config="{}"), "config")
        client.unload_model("colours")
        assert not client.is_model_ready("colours")
        assert [model.state for model in client.get_model_repository_index().models] in ([], ["UNLOADING"])
        rejected(lambda: client.infer("colours", good), status="StatusCode.NOT_FOUND")
        rejected(lambda: client.unload_model("colours"), "colours", status="StatusCode.NOT_FOUND")
        client.load_model("colours")
        assert client.infer("colours", good).as_numpy("labels")[0, 0] == b"red"
        rejected(lambda: client.get_system_shared_memory_status(), status="StatusCode.UNIMPLEMENTED")


async def asynchronous(address: str) -> None:
    async with triton_aio.InferenceServerClient(address) as client:
        assert await client.is_server_ready()
        colours = [*SEEN] * 20
        results = await asyncio.gather(
            *(client.infer("colours", images(encoded(c)), request_id=str(i)) for i, c in enumerate(colours))
        )
        for i, (colour, result) in enumerate(zip(colours, results, strict=True)):
            assert result.get_response().id == str(i)
            assert result.as_numpy("labels")[0, 0].decode() == colour

        async def requests() -> object:
            for i, colour in enumerate(colours):
                yield {"model_name": "colours", "inputs": pixels(colour), "request_id": str(i)}

        left = set(range(len(colours)))
        async for result, error in client.stream_infer(requests()):
            assert error is None, error
            i = int(result.get_response().id)
            left.remove(i)
            assert result.as_numpy("labels")[0, 0].decode() == colours[i]
        assert not left


def stream(address: str) -> None:
    answers: SimpleQueue[tuple[triton.InferResult | None, InferenceServerException | None]] = SimpleQueue()
    with triton.InferenceServerClient(address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        colours = [*SEEN] * 50
        for i, colour in enumerate(colours):
            client.async_stream_infer(
                "colours", images(encoded(colour)), request_id=str(i), enable_empty_final_response=True
            )
        left = set(range(len(colours)))
        while left:
            result, error = answers.get(timeout=LIMIT_S)
            assert error is None, error
            i = int(result.get_response().id)
            left.remove(i)
            assert result.as_numpy("labels")[0, 0].decode() == colours[i]
            assert result.get_response().parameters["triton_final_response"].bool_param
        client.async_stream_infer("colours", images(b"I am a cat"), request_id="bad")
        result, error = answers.get(timeout=LIMIT_S)
        assert result is None
        assert "NOT_AN_IMAGE" in error.message()
        client.async_stream_infer("colours", images(encoded("red")), request_id="good")
        result, error = answers.get(timeout=LIMIT_S)
        assert error is None, "one request's error must not end the stream"
        assert result.as_numpy("labels")[0, 0] == b"red"
        client.stop_stream()


if __name__ == "__main__":
    how, server = sys.argv[1:]
    if how == "asyncio":
        asyncio.run(asynchronous(server))
    else:
        {"sync": sync, "stream": stream}[how](server)
