/// main() of every test program: Boost.Test with MPI started when the program runs under mpirun. A rank other than 0
/// is silent unless it fails; the exit code is the worst of all ranks.

#include <boost/test/unit_test.hpp>

#include <mpi.h>

#include <algorithm>
#include <cstdlib>

namespace {
bool init() { return true; }
}  // namespace

int main(int argc, char** argv) {
    if (!std::getenv("OMPI_COMM_WORLD_SIZE")) return boost::unit_test::unit_test_main(&init, argc, argv);
    int provided = 0;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
    int code = boost::unit_test::unit_test_main(&init, argc, argv);
    int worst = 0;
    MPI_Allreduce(&code, &worst, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    MPI_Finalize();
    return worst;
}
