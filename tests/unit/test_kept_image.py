"""What is kept of an image for another version has the same views, bit for bit, as if that version had decoded it."""

from functools import partial
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from serving.bundle.model_version import ModelVersion
from serving.image.decode import DEFAULT_LIMITS
from serving.image.preprocess import Preprocess
from serving.image.views import make_views
from serving.models.image_data import ImageData
from serving.models.kept_image import ByteBudget, KeptImage, decodes_alike
from tests.support.images import encoded, sample_image

OWN = Preprocess(resize=72, crop=64)
OTHERS = {
    "the same": OWN,
    "another crop": Preprocess(resize=72, crop=48),
    "another interpolation": Preprocess(resize=72, crop=64, interpolation="bilinear"),
    "larger": Preprocess(resize=110, crop=96),
    "smaller": Preprocess(resize=40, crop=32),
}
LARGE = sample_image().resize((900, 660))
ROTATED = Image.Exif()
ROTATED[0x0112] = 6
IMAGES: dict[str, ImageData] = {
    "JPEG": encoded(LARGE, "JPEG", quality=90),
    "small JPEG": encoded(sample_image().resize((60, 38)), "JPEG"),
    "progressive JPEG": encoded(LARGE, "JPEG", progressive=True),
    "rotated JPEG": encoded(LARGE, "JPEG", exif=ROTATED),
    "CMYK JPEG": encoded(LARGE.convert("CMYK"), "JPEG"),
    "PNG": encoded(sample_image(), "PNG"),
    "WebP": encoded(LARGE, "WEBP", quality=80),
    "pixels": np.asarray(sample_image()),
}
VERSION = ModelVersion("pets", 2)


def keep(image: ImageData, other: Preprocess, budget: ByteBudget, parts: list[int]) -> KeptImage:
    """Keep an image while its own version makes so many views in each part, as adaptive requests do."""
    kept = KeptImage(image, OWN, VERSION, other, DEFAULT_LIMITS, budget)
    whole = sum(parts) > 1
    if isinstance(image, bytes):
        kept.keep_encoded(image)
        canvas_HWC = OWN.canvas(image, whole=whole, on_decoded=kept.keep_decoded)
    else:
        assert isinstance(image, np.ndarray)
        kept.keep_decoded(image, copied=False)
        canvas_HWC = OWN.resize_canvas(image, whole=whole)
    first = 0
    for count in parts:
        kept.keep_views(make_views(canvas_HWC, OWN.crop, first=first, count=count))
        first += count
    return kept


@pytest.mark.parametrize("parts", [[1], [3], [1, 4]], ids=str)
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("image", IMAGES)
def test_the_views_are_those_of_the_other_version(image: str, other: str, parts: list[int]) -> None:
    data, preprocess, count = IMAGES[image], OTHERS[other], sum(parts)
    budget = ByteBudget(2**24)
    kept = keep(data, preprocess, budget, parts)
    assert kept.complete
    if isinstance(data, bytes):
        expected_VHWC = preprocess.views(data, count)
    else:
        assert isinstance(data, np.ndarray)
        expected_VHWC = make_views(preprocess.resize_canvas(data, whole=count > 1), preprocess.crop, count=count)
    assert np.array_equal(kept.make_views(count), expected_VHWC)
    assert np.array_equal(kept.make_views(1), expected_VHWC[:1])
    assert budget.taken > 0
    kept.close()
    assert budget.taken == 0


def test_views_are_kept_without_a_copy_if_both_versions_have_the_same_preprocessing() -> None:
    views_VHWC = OWN.views(encoded(LARGE, "JPEG"))
    budget = ByteBudget(2**24)
    kept = KeptImage(b"", OWN, VERSION, Preprocess(resize=72, crop=64), DEFAULT_LIMITS, budget)
    kept.keep_views(views_VHWC)
    assert np.shares_memory(kept.make_views(1), views_VHWC)
    assert budget.taken == views_VHWC.nbytes
    with pytest.raises(LookupError, match="3 views are needed, and 1 were kept"):
        kept.make_views(3)


@pytest.mark.parametrize(
    ("image", "sides", "alike"),
    [
        ("JPEG", (72, 72), True),
        ("JPEG", (72, 110), False),
        ("JPEG", (72, 656), False),
        ("JPEG", (660, 700), True),  # at full size in both cases
        ("small JPEG", (72, 110), True),
        ("small JPEG", (72, 30), False),
        ("progressive JPEG", (72, 110), False),
        ("PNG", (72, 110), True),
    ],
)
def test_only_jpegs_are_decoded_at_a_scale_that_depends_on_the_version(
    image: str, sides: tuple[int, int], alike: bool
) -> None:
    data = IMAGES[image]
    assert isinstance(data, bytes)
    assert decodes_alike(data, *sides) == decodes_alike(data, *sides[::-1]) == alike
    assert decodes_alike(memoryview(data), *sides) == alike  # of a request
    assert not decodes_alike(b"\xff\xd8 damaged", 72, 110)


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("image", ["JPEG", "PNG", "pixels"])
def test_what_does_not_fit_into_the_budget_is_not_kept(image: str, other: str) -> None:
    budget = ByteBudget(1000)
    kept = keep(IMAGES[image], OTHERS[other], budget, [1])
    assert not kept.complete
    assert budget.taken == 0
    kept.close()
    assert budget.taken == 0


def test_views_of_which_the_later_ones_do_not_fit_are_incomplete() -> None:
    budget = ByteBudget(2 * 64 * 64 * 3)
    kept = keep(IMAGES["PNG"], OWN, budget, [1, 4])
    assert not kept.complete
    kept.close()
    assert budget.taken == 0


def test_a_worker_that_is_late_keeps_nothing_after_the_end() -> None:
    budget = ByteBudget(2**24)
    kept = KeptImage(b"", OWN, VERSION, OWN, DEFAULT_LIMITS, budget)
    kept.close()
    kept.keep_views(OWN.views(encoded(LARGE, "JPEG")))
    assert not kept.complete
    assert budget.taken == 0


def test_several_threads_never_take_more_than_the_budget() -> None:
    budget = ByteBudget(100)
    admitted: list[bool] = []

    def work(size: int) -> None:
        for _ in range(1000):
            if budget.take(size):
                admitted.append(budget.taken <= budget.limit)
                budget.release(size)

    threads = [Thread(target=partial(work, size)) for size in (40, 50, 60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(admitted)
    assert len(admitted) >= 1000
    assert budget.taken == 0
