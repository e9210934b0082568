"""What a job's process does: set threads and environment, carry out the run, answer with an exit status and one line.

Used by the fork server's children, and as `python -m pipeline.launch.entry JOB.json` inside a Slurm job.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path

from pipeline.errors import RunFailed, UserError
from pipeline.launch.job import EXIT_BUSY, EXIT_FAILED, EXIT_FINISHED, EXIT_PREEMPTED, EXIT_USER_ERROR, Job, load_entry
from pipeline.progress import Lines
from pipeline.records.atomic import Locked
from pipeline.records.store import RunRecord, RunStore


def run_job(job: Job) -> tuple[int, str]:
    """Carry out `job` in this process; returns (exit status, one line of explanation or "")."""
    os.environ.update(job.env)
    try:
        if job.threads:
            limit_threads(job.threads)
        carry_out = load_entry(job.entry)
        record = carry_out(job.resolved(), RunStore(Path(job.out) / "runs"), progress=Lines(), **job.options)
    except Locked as error:
        return EXIT_BUSY, str(error)
    except UserError as error:
        return EXIT_USER_ERROR, str(error)
    except RunFailed as error:
        return error.exit_status, str(error)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else EXIT_FAILED
        return status, "" if isinstance(error.code, int) or error.code is None else str(error.code)
    except KeyboardInterrupt:
        return EXIT_PREEMPTED, "interrupted"
    except Exception as error:  # noqa: BLE001 - process boundary: whatever a run dies of is reported
        traceback.print_exc()
        return EXIT_FAILED, f"{type(error).__name__}: {' '.join(str(error).split())}"
    state = record.state if isinstance(record, RunRecord) else "finished"
    return (EXIT_PREEMPTED if state == "preempted" else EXIT_FINISHED), ""


def limit_threads(threads: int) -> None:
    """Keep this process's numerical libraries to `threads` CPU threads."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def main(arguments: list[str] | None = None) -> int:
    """`python -m pipeline.launch.entry JOB.json`."""
    paths = sys.argv[1:] if arguments is None else arguments
    if len(paths) != 1:
        sys.stderr.write("usage: python -m pipeline.launch.entry JOB.json\n")
        return EXIT_USER_ERROR
    # until the trainer installs its own handler, a request to stop means that nothing has been done yet
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(EXIT_PREEMPTED))
    signal.signal(signal.SIGUSR1, lambda number, frame: sys.exit(EXIT_PREEMPTED))
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # Slurm sends it to the whole job; the parent turns it into SIGTERM
    status, message = run_job(Job.from_json(Path(paths[0]).read_text()))
    if message:
        sys.stderr.write(f"{message}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
