"""A sweep as a job array of Slurm, by Hydra's launcher for submitit and stand-ins for Slurm's programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import programs
from tests.support.programs import script
from tests.support.training import records
from tests.train.test_program import settings

pytestmark = pytest.mark.slow

# The tasks run after sbatch has returned, as submitit then puts their files where they look for them.
SBATCH = """#!/bin/sh
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$1")
for task in $(seq 0 "$last"); do
    SLURM_JOB_ID=4711$task SLURM_ARRAY_JOB_ID=4711 SLURM_ARRAY_TASK_ID=$task sh "$1"
done >"$0.log" 2>&1 &
echo "Submitted batch job 4711"
"""
SRUN = """#!/bin/sh
while [ "${1#--}" != "$1" ]; do
    case $1 in --output | --error) shift ;; esac
    shift
done
SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0 exec "$@"
"""
SACCT = """#!/bin/sh
printf 'JobID|State|NodeList\\n4711_0|RUNNING|here\\n4711_1|RUNNING|here\\n'
"""


def test_a_sweep_runs_as_jobs(tiny_dataset: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs hydra-submitit-launcher")
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    path = {"PATH": f"{tmp_path}:{programs.ENVIRONMENT['PATH']}"}
    given = [*settings(tmp_path / "lr-${optim.lr}", tiny_dataset), "optim.lr=0.01,0.02", "-m"]
    programs.run(script("train"), *given, "hydra/launcher=submitit_slurm", cwd=tmp_path, environment=path, timeout=300)
    losses = [records(tmp_path / f"lr-{rate}")[-1] for rate in ("0.01", "0.02")]
    assert [record["step"] for record in losses] == [20, 20]
    assert losses[0] != losses[1]
    assert list(tmp_path.glob("multirun/**/4711_1_0_result.pkl"))
