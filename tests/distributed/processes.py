"""Real gloo processes on this machine that stay up and run one function after the other."""

import multiprocessing
import pickle
import traceback
from datetime import timedelta

import torch

# Started once with what every worker imports; each worker is then a fork of it, which takes no time.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["torch.distributed.fsdp", "torch.distributed.tensor.parallel", "torch.distributed.checkpoint", "extrap_kernels"]
)
SECONDS = 60


def _serve(rank, count, store, connection):
    torch.set_num_threads(1)
    limit = timedelta(seconds=SECONDS)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=count, timeout=limit
    )
    # Pickled here: multiprocessing would send tensors as shared memory, which needs its owner to live on.
    while (call := pickle.loads(connection.recv_bytes())) is not None:
        function, args, kwargs = call
        try:
            answer = (True, function(*args, **kwargs))
        except Exception:
            answer = (False, traceback.format_exc())
        connection.send_bytes(pickle.dumps(answer))
    torch.distributed.destroy_process_group()


class Processes:
    """A process group of `count` processes; `run` calls a function of a module in each of them."""

    def __init__(self, count, store):
        self.connections, self.processes = [], []
        for rank in range(count):
            ours, theirs = _CONTEXT.Pipe()
            process = _CONTEXT.Process(target=_serve, args=(rank, count, store, theirs), daemon=True)
            process.start()
            theirs.close()
            self.connections.append(ours)
            self.processes.append(process)

    def run(self, function, *args, **kwargs):
        """The results by rank; RuntimeError with the traceback of the first rank that failed."""
        for connection in self.connections:
            connection.send_bytes(pickle.dumps((function, args, kwargs)))
        results = [self._receive(rank) for rank in range(len(self.connections))]
        failed = [result for done, result in results if not done]
        if failed:
            self.kill()  # the others may wait for each other now
            raise RuntimeError("\n".join(failed))
        return [result for _, result in results]

    def _receive(self, rank):
        try:
            if self.connections[rank].poll(SECONDS):
                return pickle.loads(self.connections[rank].recv_bytes())
        except EOFError:
            return False, f"rank {rank} died"
        return False, f"rank {rank} gave no answer in {SECONDS} s"

    def stop(self):
        for connection, process in zip(self.connections, self.processes):
            if process.is_alive():
                connection.send_bytes(pickle.dumps(None))
        for process in self.processes:
            process.join(10)
        self.kill()

    def kill(self):
        for process in self.processes:
            process.kill()
            process.join()
