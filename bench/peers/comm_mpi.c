// MPI_Allreduce of f32 for bench/comm.ts: comm_mpi BYTES:ROUNDS,…; a line of JSON for each size, times of the slowest rank in s.
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  int rank, size;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  for (char *part = strtok(argv[1], ","); part; part = strtok(NULL, ",")) {
    long bytes;
    int rounds;
    sscanf(part, "%ld:%d", &bytes, &rounds);
    long count = bytes / 4;
    float *data = malloc(bytes);
    if (rank == 0) printf("{\"bytes\":%ld,\"times\":[", bytes);
    for (int round = -2; round < rounds; round++) {
      for (long i = 0; i < count; i++) data[i] = rank + 1;
      MPI_Barrier(MPI_COMM_WORLD);
      double start = MPI_Wtime();
      MPI_Allreduce(MPI_IN_PLACE, data, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
      double own = MPI_Wtime() - start, slowest;
      MPI_Allreduce(&own, &slowest, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
      if (data[count / 2] != size * (size + 1) / 2.f) MPI_Abort(MPI_COMM_WORLD, 1);
      if (rank == 0 && round >= 0) printf("%s%.9f", round ? "," : "", slowest);
    }
    if (rank == 0) printf("]}\n");
    free(data);
  }
  MPI_Finalize();
}
