"""Opening a run: the facts of run.json, also of runs that an earlier version wrote."""

import json
from pathlib import Path

from serving.image.decode import OWN_IMAGE_LIMITS
from tests.support.runs import FACTS
from training.runs.run import RUN_FORMAT, open_run

LATER = ("temperatures", "recommended_views", "class_report")


def test_a_run_of_an_earlier_version_has_one_temperature_and_recommends_one_view(tmp_path: Path) -> None:
    earlier = {name: value for name, value in FACTS.items() if name not in LATER}
    facts = earlier | {"format": RUN_FORMAT, "temperature": 0.5, "data": {"path": "images"}}
    (tmp_path / "run.json").write_text(json.dumps(facts))
    run = open_run(tmp_path)
    assert run.temperatures == {1: 0.5}
    assert run.recommended_views == 1
    assert run.class_report is None
    assert run.limits == OWN_IMAGE_LIMITS
