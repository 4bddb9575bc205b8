"""One Ray cluster for all tests of Ray that do not test its start."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ahp_toolkit.runtime import ray_start

MIB = 2**20


def patient(get_node, seconds=300.0):
    """Ray gives a raylet half a minute to start; a machine that runs other tests beside these may take longer."""

    def wait(*args):
        end = time.monotonic() + seconds
        while True:
            try:
                return get_node(*args)
            except RuntimeError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    return wait


@pytest.fixture(scope="package")
def cluster() -> Iterator[object]:
    """Three raylets of one CPU; the first also claims a GPU, which nothing here uses."""
    import ray
    from ray._private import services
    from ray.cluster_utils import Cluster

    here = {"PYTHONPATH": str(Path(__file__).parents[2]), "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (here | ray_start.PATIENT).items():
            patch.setenv(name, value)
        temp = tempfile.mkdtemp(prefix="ahp-ray-")
        small = {"num_cpus": 1, "object_store_memory": 100 * MIB}
        first = small | {"num_gpus": 1, "include_dashboard": False, "temp_dir": temp}
        patch.setattr(services, "get_node", patient(services.get_node))
        patch.setenv("RAY_TMPDIR", temp)  # there it notes the address, in a folder that it expects to stand
        (Path(temp) / "ray").mkdir()
        made = Cluster(initialize_head=True, head_node_args=first)
        made.others = [made.add_node(**small) for _ in range(2)]
        yield made
        ray.shutdown()
        made.shutdown()
        shutil.rmtree(temp, ignore_errors=True)
