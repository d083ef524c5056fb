/// A GPU works on while its host waits for other hosts. Here the host's thread is the GPU too, so the calls of MPI in which
/// this program blocks are split into a start and a wait that lets queued work run.

#include "emulator/runtime.hpp"

#include <mpi.h>
#include <sched.h>

namespace {

int wait_for(int started, MPI_Request* request) {
    int done = started != MPI_SUCCESS, code = started;
    while (!done) {
        rf::emulator::progress();
        code = PMPI_Test(request, &done, MPI_STATUS_IGNORE);
        if (code != MPI_SUCCESS) return code;
        if (!done) sched_yield();
    }
    return code;
}

}  // namespace

namespace rf::emulator {
void split_host_waits() {}
}  // namespace rf::emulator

extern "C" {

int MPI_Barrier(MPI_Comm comm) {
    MPI_Request request;
    return wait_for(PMPI_Ibarrier(comm, &request), &request);
}
int MPI_Allreduce(const void* send, void* receive, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm) {
    MPI_Request request;
    return wait_for(PMPI_Iallreduce(send, receive, count, type, op, comm, &request), &request);
}
int MPI_Allgather(const void* send, int send_count, MPI_Datatype send_type, void* receive, int receive_count, MPI_Datatype receive_type, MPI_Comm comm) {
    MPI_Request request;
    return wait_for(PMPI_Iallgather(send, send_count, send_type, receive, receive_count, receive_type, comm, &request), &request);
}
int MPI_Bcast(void* data, int count, MPI_Datatype type, int root, MPI_Comm comm) {
    MPI_Request request;
    return wait_for(PMPI_Ibcast(data, count, type, root, comm, &request), &request);
}
int MPI_Waitall(int count, MPI_Request* requests, MPI_Status* statuses) {
    int done = 0, code = MPI_SUCCESS;
    while (!done && code == MPI_SUCCESS) {
        rf::emulator::progress();
        code = PMPI_Testall(count, requests, &done, statuses);
        if (!done) sched_yield();
    }
    return code;
}

}  // extern "C"
