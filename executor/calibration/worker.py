"""One rank's process of a calibration that `flashcp calibrate` started by itself.

Started by torch's elastic launcher as `python -m executor.calibration.worker FOLDER`; the folder
holds the request and takes the results and, should something go wrong, one file a rank.
"""

import json
import os
import sys
import time
from pathlib import Path

from executor.calibration.request import load_request
from executor.calibration.session import measure_all
from executor.errors import RunError
from executor.worker import RESULTS, cause, output_name


def main(folder: Path) -> None:
    """Measure as one rank of the group that the environment describes."""
    rank = int(os.environ["RANK"])
    # What libraries print belongs to nobody's report; the launcher shows it if all else is silent.
    with (folder / output_name(rank)).open("w") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    try:
        results = measure_all(load_request(folder), lambda _: None)
    # Whatever it is, the launcher must be able to say which rank it was and why.
    except Exception as error:  # noqa: BLE001
        kind = "refused" if isinstance(error, RunError) else "raised"
        fault = {"rank": rank, "line": cause(error), "kind": kind, "when": time.time()}
        (folder / f"fault-{rank}.json").write_text(json.dumps(fault))
        os._exit(1)
    if results is not None:
        (folder / RESULTS).write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
