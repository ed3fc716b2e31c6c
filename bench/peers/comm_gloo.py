# all_reduce of torch.distributed over Gloo for bench/comm.ts: comm_gloo.py SIZE BYTES:ROUNDS,…; as comm_mpi.c.
import json, os, socket, sys, time
import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def work(rank, size, port, plan):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=size)
    for part in plan.split(","):
        bytes, rounds = map(int, part.split(":"))
        data = torch.empty(bytes // 4)
        times = []
        for round in range(-2, rounds):
            data.fill_(rank + 1)
            dist.barrier()
            start = time.perf_counter()
            dist.all_reduce(data)
            slowest = torch.tensor([time.perf_counter() - start], dtype=torch.float64)
            dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
            assert data[bytes // 8].item() == size * (size + 1) / 2
            if round >= 0:
                times.append(slowest.item())
        if rank == 0:
            print(json.dumps({"bytes": bytes, "times": times}), flush=True)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    size = int(sys.argv[1])
    mp.spawn(work, (size, port, sys.argv[2]), nprocs=size)
