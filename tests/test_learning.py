"""Laws of 11f_learning: which benign records may calibrate a model that learned."""
from types import SimpleNamespace

import numpy as np
import pandas as pd

from nfad.answers import fingerprints
from nfad.learning import _fresh
from nfad.seen import remember


def test_calibration_records_that_came_more_than_once_still_calibrate():
    "Only what was trained on, and what a person answered, is left out; common held-out records are not."
    rng = np.random.default_rng(0)
    records = pd.DataFrame(rng.standard_normal((60, 3)), columns=list("abc"))
    trained, common, other = records[:20], records[20:40], records[40:]
    made_from = pd.concat([trained, common])
    seen = remember(made_from, copies=np.repeat([1, 5], 20), trained=np.repeat([True, False], 20))
    answers = SimpleNamespace(records=other[:3].reset_index(drop=True))
    fresh, left_out = _fresh(SimpleNamespace(seen=seen), pd.concat([records[15:]], ignore_index=True), answers)
    assert set(fingerprints(fresh)) == set(fingerprints(pd.concat([common, other[3:]])))
    assert left_out == {"a person answered them": 3, "the model was trained on them": 5}
    everything, nothing = _fresh(SimpleNamespace(seen=None), records, SimpleNamespace(records=records[:0]))
    assert len(everything) == 60 and not any(nothing.values())
