"""The processes of one run: how they find each other, what one tells the others, and what all agree on.

A program that every device takes part in is entered by all processes or by none; whatever one process alone learns (a
signal, a damaged file, an error) is therefore told to the others before anyone acts on it. That goes through the key
and value store of JAX's coordination service, which process 0 runs, or as a collective of the devices.
"""

import json
import os
import time
from collections.abc import Callable

import jax
import numpy as np
from jax.errors import JaxRuntimeError
from jax.experimental import multihost_utils

from fooddit.config import ConfigError

# Seconds until all processes must have come: some wait for a machine, or still load their image.
LONGEST_WAIT = 900
_LONGEST_PROBLEM = 1000
# Of an environment that starts one process a host, or a task: each would train alone without --distributed.
_MANY = ("SLURM_NTASKS", "MEGASCALE_NUM_SLICES", "JOBSET_REPLICATED_JOB_REPLICAS")


class NotTogether(RuntimeError):
    """The processes of a run did not find each other in time: the same command may be started again."""


def join(where: str, heartbeat_seconds: int = 100) -> None:
    """Joins the processes of a run. Before anything asks JAX for its devices.

    where: "" for a run of one process; "auto" where JAX finds the others itself (Cloud TPU, GKE, Slurm, Open MPI);
    "HOST:PORT,COUNT,INDEX" says it: where process 0 can be reached, how many there are, which one this is.
    heartbeat_seconds: without a sign of life for so long a process is given up, and with it the run.

    Raises:
      ConfigError: another form, or one process where the environment has several.
      NotTogether: the others did not come, or the coordinator is not there (yet).
    """
    if not where:
        if many := next((name for name in _MANY if int(os.environ.get(name) or 1) > 1), None):
            raise ConfigError(
                f"--distributed is missing: {many}={os.environ[many]} says that this process is one of several, and "
                "each would train a model of its own; give --distributed=auto"
            )
        return
    known = {} if where == "auto" else _parse(where)
    # The service that hears SIGTERM for JAX would take it from our supervisor.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            **known, heartbeat_timeout_seconds=heartbeat_seconds, initialization_timeout=LONGEST_WAIT
        )
    except JaxRuntimeError as error:
        raise NotTogether(
            f"--distributed={where}: the processes did not come together: {' '.join(str(error).split())[:300]}"
        ) from error
    except (RuntimeError, ValueError) as error:
        if where == "auto" and "should be defined" in str(error):
            raise ConfigError(
                "--distributed=auto: JAX found no cluster here (Cloud TPU, GKE, Slurm or Open MPI); give "
                "--distributed=HOST:PORT,COUNT,INDEX, or leave it away for one process"
            ) from error
        raise ConfigError(f"--distributed={where}: {' '.join(str(error).split())[:300]}") from error


def _parse(where: str) -> dict:
    address, *numbers = where.split(",")
    good = ":" in address and len(numbers) == 2 and all(number.isdecimal() for number in numbers)
    if not good or not int(numbers[1]) < int(numbers[0]):
        raise ConfigError(
            f"--distributed: found {where!r}, expected auto or HOST:PORT,COUNT,INDEX with INDEX from 0 to COUNT - 1"
        )
    return {"coordinator_address": address, "num_processes": int(numbers[0]), "process_id": int(numbers[1])}


def wait_for_all(name: str) -> None:
    """Returns when every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def any_process(here: bool) -> bool:
    """Whether it is so on any process. All of them ask."""
    return bool(here) if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(here)).any())


def first_problem(here: str) -> str:
    """ "process 3: what it says", of the first process that has a problem to tell; "" if none has. All of them ask."""
    if jax.process_count() == 1:
        return here
    mine = np.frombuffer(here.encode()[:_LONGEST_PROBLEM].ljust(_LONGEST_PROBLEM), np.uint8)
    texts = [bytes(row).decode(errors="ignore").strip() for row in multihost_utils.process_allgather(mine)]
    return next((f"process {i}: {text}" for i, text in enumerate(texts) if text), "")


def from_first(make: Callable[[], dict]) -> dict:
    """What `make` gives on process 0, on all processes: JSON."""
    if jax.process_count() == 1:
        return make()
    text = json.dumps(make()).encode() if jax.process_index() == 0 else b""
    size = int(multihost_utils.broadcast_one_to_all(np.array(len(text))))
    padded = np.frombuffer(text.ljust(size, b" "), np.uint8)
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded))))


class Group:
    """Notes that the processes of a run leave each other: JSON, one of each name and process."""

    def __init__(self, client, index: int, count: int):
        self.index, self.count, self._client = index, count, client
        # A thousand processes ask a thousand times a second at most.
        self.interval = 0.25 + count / 1000

    @classmethod
    def joined(cls) -> "Group | None":
        """Of the processes that `join` brought together; None for one alone, who has nobody to tell."""
        from orbax.checkpoint import multihost

        if jax.process_count() == 1:
            return None
        return cls(multihost.get_jax_distributed_client(), jax.process_index(), jax.process_count())

    def tell(self, name: str, value: object) -> None:
        """Leaves a note for all, in place of this process's former one of that name."""
        self._client.key_value_set(f"fooddit/{name}/{self.index}", json.dumps(value), allow_overwrite=True)

    def told(self, name: str) -> dict[int, object]:
        """The notes of that name that there are, by process."""
        found = self._client.key_value_dir_get(f"fooddit/{name}/")
        return {int(key.rsplit("/", 1)[1]): json.loads(value) for key, value in found}

    def told_by_all(self, name: str, seconds: float) -> bool:
        """Waits until every process has left one: whether they have, within `seconds`."""
        end = time.monotonic() + seconds
        while len(self.told(name)) < self.count:
            if time.monotonic() > end:
                return False
            time.sleep(self.interval)
        return True
