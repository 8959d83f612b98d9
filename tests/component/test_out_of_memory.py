"""If memory runs out, decoding raises MemoryError: the image is not reported as damaged, and the process does not end.

Each image is decoded in processes with a memory limit, from nearly no free memory to enough.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from serving.image.decode import ImageError, Limits, Reason, decode
from serving.image.headers import canvas_size
from serving.system.memory import can_allocate, check_memory, is_out_of_memory
from tests.support.commands import ROOT
from tests.support.images import encoded, sample_image
from tests.support.waiting import LIMIT_S

SIDE = 1600
KINDS: dict[str, tuple[str, str, dict[str, object]]] = {
    "plain.jpg": ("RGB", "JPEG", {}),
    "progressive.jpg": ("RGB", "JPEG", {"progressive": True}),
    "turned.jpg": ("RGB", "JPEG", {"xmp": b"<x:xmpmeta/>"}),
    "cmyk.jpg": ("CMYK", "JPEG", {}),
    "rgb.png": ("RGB", "PNG", {"compress_level": 1}),
    "alpha.png": ("RGBA", "PNG", {"compress_level": 1}),
    "lossy.webp": ("RGB", "WEBP", {"method": 0}),
    "lossless.webp": ("RGB", "WEBP", {"lossless": True, "method": 0, "quality": 0}),
    "deflated.tiff": ("RGB", "TIFF", {"compression": "tiff_deflate"}),
    "jpeg.tiff": ("RGB", "TIFF", {"compression": "jpeg"}),
    "palette.gif": ("RGB", "GIF", {}),
}
STEP, MOST = 5 * 2**20, 150 * 2**20


def read_with_little_memory(path: Path) -> list[str]:
    """The outcomes with ever more memory until the image is decoded: "ok", the exception or the signal."""
    from serving.image.preprocess import Preprocess

    preprocess, data = Preprocess(), path.read_bytes()
    preprocess.canvas(encoded(Image.new("RGB", (64, 64)), "JPEG"))
    outcomes = []
    for more in range(2**18, MOST, STEP):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            limit_memory(more)
            try:
                preprocess.canvas(data)
                outcome = "ok"
            except Exception as error:
                outcome = "MemoryError" if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}"
            os.write(writer, outcome.encode())
            os._exit(0)
        os.close(writer)
        _, status = os.waitpid(child, 0)
        outcomes.append(os.read(reader, 1000).decode() if os.WIFEXITED(status) else f"signal {os.WTERMSIG(status)}")
        os.close(reader)
        if outcomes[-1] == "ok":
            break
    return outcomes


def limit_memory(more: int) -> None:
    """Let this process allocate so many more bytes."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + more, resource.RLIM_INFINITY))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The outcomes of each kind of image."""
    if sys.platform != "linux":
        pytest.skip("needs Linux's limit of address space")
    folder = tmp_path_factory.mktemp("images")
    image = sample_image().resize((SIDE, SIDE))
    for name, (mode, format_, options) in KINDS.items():
        (folder / name).write_bytes(encoded(image.convert(mode), format_, **options))
    command = [sys.executable, "-m", "tests.component.test_out_of_memory", str(folder)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert finished.returncode == 0, finished.stderr
    found: dict[str, list[str]] = json.loads(finished.stdout)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_an_intact_image_is_decoded_or_raises_memory_error(kind: str, outcomes: dict[str, list[str]]) -> None:
    *before, last = outcomes[kind]
    assert last == "ok", outcomes[kind]
    assert set(before) <= {"MemoryError"}
    assert before or kind in ("plain.jpg", "turned.jpg"), "it needs so little memory that no attempt failed"


def test_a_damaged_image_is_reported_as_damaged_if_there_is_memory() -> None:
    for kind in ("lossless.webp", "progressive.jpg", "cmyk.jpg"):
        mode, format_, options = KINDS[kind]
        data = encoded(sample_image().convert(mode), format_, **options)
        with pytest.raises(ImageError) as caught:
            decode(data[: len(data) // 2])
        assert caught.value.reason is Reason.TRUNCATED


@pytest.mark.parametrize(
    "message",
    [
        "out of memory error when reading image file",
        "Insufficient memory (case 4)",
        "bfc_arena.cc:360 Failed to allocate memory for requested buffer of size 19267584",
        "Status Message: std::bad_alloc",
        "CUDA failure 2: out of memory ; GPU=0",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
    ],
)
def test_messages_of_libraries_are_recognized(message: str) -> None:
    assert is_out_of_memory(RuntimeError(message))


def test_other_failures_are_not_out_of_memory() -> None:
    assert not is_out_of_memory(OSError("broken data stream when reading image file"))
    assert can_allocate(2**20)
    assert not can_allocate(2**60)
    with pytest.raises(MemoryError):
        check_memory(2**60)


@pytest.mark.parametrize("options", [{"method": 0}, {"lossless": True}, {"xmp": b"<x:xmpmeta/>"}])
@pytest.mark.parametrize("size", [(1, 1), (150, 110), (300, 2000)])
def test_the_size_of_a_webp_is_read_from_its_header(size: tuple[int, int], options: dict[str, object]) -> None:
    data = encoded(sample_image().resize(size), "WEBP", **options)
    assert canvas_size(data) == size


def test_a_webp_with_a_huge_canvas_is_rejected_before_memory_is_allocated() -> None:
    data = bytearray(encoded(sample_image(), "WEBP", xmp=b"<x:xmpmeta/>"))
    data[24:30] = b"\xff\xff\xff\0\0\0"  # 16,777,216 x 1
    with pytest.raises(ImageError) as caught:
        decode(bytes(data), limits=Limits(max_pixels=10_000_000))
    assert caught.value.reason is Reason.TOO_LARGE


if __name__ == "__main__":
    print(json.dumps({path.name: read_with_little_memory(path) for path in sorted(Path(sys.argv[1]).iterdir())}))
