"""Which views to average, how, and which to train the head on: cross-validation on the training images alone.

    python -m benchmarks.training.views --data images [--arch NAME --weights FILE] [--cache DIR]

The activations of all candidate views are computed once and kept in the cache. For each of five folds, and for several
seeds, heads are trained with the stage of the preset `quick` on the other folds, and logits are computed of every
candidate view of the fold. So each image has logits of heads that were not trained on it. A set of views is scored with
a temperature fitted on four fifths of the images and applied to the last, as serving fits one for each number of views.
Validation images are not read.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import absolute_path, make_parser, table
from serving.image.views import View, make_view
from serving.system.cpus import available_cpus
from training.console import progress, say
from training.data.image_files import read_images
from training.data.images import LabelledImage, labels_of
from training.data.sources import Rows
from training.distributed import ProcessGroup
from training.evaluation.metrics import compare, mean_interval, nll_of
from training.evaluation.temperature import cross_fitted, fit_temperature, softmax
from training.features.activations import Activations, ActivationSource, default_cache
from training.features.extract import onnx_extractor
from training.fitting.loop import train_epochs
from training.fitting.trainer import Trainer
from training.hardware import choose_hardware, limit_threads, threads
from training.networks.layer_groups import head_group
from training.networks.model import Backbone, Body, Head, describe_backbone, head_width
from training.networks.weights import fingerprint, load_weights
from training.recipes.recipe import Recipe

FOLDS = 5
WIDE = 0.875
"""Zoom at which a view shows the whole short side, where the crop is 7/8 of it."""
CANDIDATES: Mapping[str, View] = {
    "centre": View(),
    "centre_m": View(mirror=True),
    "start": View(along=-1),
    "end": View(along=1),
    "start_m": View(along=-1, mirror=True),
    "end_m": View(along=1, mirror=True),
    "squash": View(squeezed=True),
    "squash_m": View(squeezed=True, mirror=True),
    "wide": View(zoom=WIDE),
    "wide_m": View(zoom=WIDE, mirror=True),
    "tight": View(zoom=1.2),
    "wstart": View(along=-1, zoom=WIDE),
    "wend": View(along=1, zoom=WIDE),
}
"""`_m` is mirrored, `w` shows the whole short side, `squash` is the whole image squeezed into a square."""
AVERAGED = (
    "centre",
    "centre centre_m",
    "centre wide",
    "centre start end",
    "centre wstart wend",
    "centre tight wide",
    "centre centre_m squash",
    "centre start_m end",
    "centre start end squash",
    "centre start end tight",
    "centre start end tight wide",
    "centre start end squash wide",
    "centre start end squash tight",
    "centre start end squash centre_m",
    "centre start end centre_m wide",
    "centre start end centre_m tight",
    "centre start end tight wide_m",
    "centre start_m end tight wide_m",
    "centre start end start_m end_m",
    "centre start end tight wide centre_m start_m end_m",
)
TRAINED = ("centre centre_m", "centre", "centre tight wide", "centre start end", "centre start end tight wide")


def compute_features(images: Sequence[LabelledImage], body: Body, backbone: Backbone, folder: Path) -> Activations:
    """The activations of every candidate view, from the cache if they are there."""
    labels_N, names = labels_of(images), tuple(CANDIDATES)
    row_of_NV = np.arange(len(images) * len(names)).reshape(len(images), len(names))
    kept = folder / "candidate-views.npz"
    if kept.exists():
        found = np.load(kept)
        if tuple(found["names"].tolist()) == names and np.array_equal(found["labels"], labels_N):
            return Activations(list(images), [], 0, 0, np.concatenate(found["rows"]), row_of_NV)
    extract = onnx_extractor(body.eval(), backbone.preprocess.crop, folder / "body")

    def extract_image(image: LabelledImage) -> NDArray[np.float32]:
        canvas = backbone.preprocess.canvas(image.read(), whole=True, limits=image.limits)
        views = [make_view(canvas, backbone.preprocess.crop, view) for view in CANDIDATES.values()]
        return np.concatenate([extract(view[None]) for view in views])

    rows = []
    with ThreadPoolExecutor(available_cpus()) as pool, progress("candidate views") as on_progress:
        for row in pool.map(extract_image, images):
            rows.append(row)
            on_progress(len(rows), len(images))
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(kept, rows=np.stack(rows), labels=labels_N, names=names)
    return Activations(list(images), [], len(images), row_of_NV.size, np.concatenate(rows), row_of_NV)


def view_indices(names: str) -> list[int]:
    """The indices of candidate views, whose names are separated by spaces."""
    return [list(CANDIDATES).index(name) for name in names.split()]


def some(features: Activations, images_n: Rows, views: Sequence[int]) -> ActivationSource:
    """Some views of some images."""
    images = [features.images[index] for index in images_n]
    return ActivationSource(replace(features, images=images, row_of_NV=features.row_of_NV[images_n][:, views]))


def out_of_fold_logits(features: Activations, trained: str, seed: int, width: int) -> NDArray[np.float32]:
    """Logits float32 `[V, N, K]` of every view, each image's by the head that was trained on the other folds.

    A head is trained with the stage of the preset `quick`.
    """
    n, classes, recipe = len(features.images), int(features.labels().max()) + 1, Recipe()
    stage = recipe.stages["head"]
    fold_of = np.random.default_rng(seed).permutation(n) % FOLDS
    logits_VNK = np.empty((len(CANDIDATES), n, classes), np.float32)
    for fold in range(FOLDS):
        inside = np.flatnonzero(fold_of == fold)
        torch.manual_seed(seed)
        head = Head(features.rows.shape[1], classes, recipe.dropout, width=width)
        trainer = Trainer(
            head,
            [head_group(head)],
            momentum=recipe.momentum,
            weight_decay=stage.weight_decay,
            freeze_bn=False,
            hardware=replace(choose_hardware(), autocast=None),
            processes=ProcessGroup(),
        )
        *_, last = train_epochs(
            trainer,
            stage,
            name="head",
            train=some(features, np.flatnonzero(fold_of != fold), view_indices(trained)),
            valid=some(features, inside, range(len(CANDIDATES))),
            rates=[stage.lr[-1]],
            batch_size=recipe.batch_size,
            seed=seed,
            done=0,
            before=0,
            on_batch=lambda done, total: None,
        )
        logits_VNK[:, inside] = last.logits.numpy().reshape(len(inside), len(CANDIDATES), -1).transpose(1, 0, 2)
    return logits_VNK


def arithmetic(logits_VNK: NDArray[np.float32], labels_N: NDArray[np.int64]) -> NDArray[np.float32]:
    """The mean of probabilities at the temperature of the first view: what serving did before."""
    fold_of = np.random.default_rng(0).permutation(len(labels_N)) % FOLDS
    probabilities = np.empty(logits_VNK.shape[1:], np.float32)
    for fold in range(FOLDS):
        inside = fold_of == fold
        temperature = fit_temperature(logits_VNK[0, ~inside], labels_N[~inside])
        probabilities[inside] = np.mean([softmax(view[inside], temperature) for view in logits_VNK], 0)
    return probabilities


@dataclass(frozen=True)
class Scores:
    """Scores of one way to average, over all seeds."""

    errors: float
    """Images of N, the mean over seeds."""
    nll_N: NDArray[np.float64]
    """Mean over seeds for each image."""
    correct_N: NDArray[np.bool_]
    """Whether the probabilities averaged over seeds are correct."""


def score(per_seed: Sequence[NDArray[np.float32]], labels_N: NDArray[np.int64]) -> Scores:
    """Scores of the probabilities `[N, K]` of each seed."""
    errors = [int((each.argmax(1) != labels_N).sum()) for each in per_seed]
    nll_N = np.mean([nll_of(each, labels_N) for each in per_seed], 0)
    return Scores(float(np.mean(errors)), nll_N, np.mean(per_seed, 0).argmax(1) == labels_N)


def rows(
    logits: Mapping[str, Sequence[NDArray[np.float32]]], labels_N: NDArray[np.int64]
) -> Iterator[tuple[object, ...]]:
    """The table: each set of views and way to average against one view, of heads trained on each set of views."""

    def of(trained: str, views: str, *, mean: str = "geometric") -> Scores:
        combine = cross_fitted if mean == "geometric" else arithmetic
        return score([combine(each[view_indices(views)], labels_N) for each in logits[trained]], labels_N)

    base = of(TRAINED[0], "centre")
    for trained in logits:
        for views in AVERAGED:
            means = ("geometric", "arithmetic") if " " in views and trained == TRAINED[0] else ("geometric",)
            for mean in means:
                found = of(trained, views, mean=mean)
                change = mean_interval(found.nll_N - base.nll_N)
                paired = compare(base.correct_N, found.correct_N)
                yield (
                    trained,
                    views,
                    mean,
                    f"{found.errors:.1f}",
                    f"{found.nll_N.mean():.4f}",
                    f"{100 * change.value / base.nll_N.mean():+.1f}% "
                    f"({100 * change.lower / base.nll_N.mean():+.1f} to {100 * change.upper / base.nll_N.mean():+.1f})",
                    f"+{paired.fixed} -{paired.broken}, {paired.p_value:.2f}",
                )


def main() -> None:
    """Compute or find the activations, train the heads, and print the table as Markdown."""
    parser = make_parser(__doc__, "data")
    parser.add_argument("--arch", default="tf_efficientnet_lite0", help="the backbone (tf_efficientnet_lite0)")
    parser.add_argument("--weights", default="pretrained", help="as for `fit` (pretrained)")
    parser.add_argument("--cache", type=absolute_path, help="where activations are kept (as for `fit`)")
    parser.add_argument("--seeds", type=int, default=3, help="of the folds and heads (3)")
    arguments = parser.parse_args()
    limit_threads()
    backbone = describe_backbone(arguments.arch)
    body = Body(backbone)
    load_weights(body.network, arguments.arch, arguments.weights)
    images = read_images(arguments.data).split(valid_fraction=0.2, seed=0).train
    sha256 = fingerprint(body.network.state_dict())
    folder = (arguments.cache or default_cache()) / f"candidate-views-{arguments.arch}-{sha256[:12]}"
    features = compute_features(images, body, backbone, folder)
    width = head_width(body, features.rows.shape[1], int(features.labels().max()) + 1)
    say(f"{len(images):,} training images, heads of {width} units")
    with threads(1):  # a head is small: several threads would wait for one another
        logits = {
            trained: [out_of_fold_logits(features, trained, seed, width) for seed in range(arguments.seeds)]
            for trained in TRAINED
        }
    header = ("trained on", "averaged", "mean", "errors", "log loss", "change of log loss", "fixed, broken, p")
    print(table(header, rows(logits, labels_of(images))))


if __name__ == "__main__":
    main()
