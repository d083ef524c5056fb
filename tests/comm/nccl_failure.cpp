/// What the ranks of a failing run say and how they end; nccl_failure_test.py starts it. Argument: counts (rank 1 sums
/// fewer elements than the rest), blocked (ranks meet in MPI, too) or nothing; the test takes a rank away.

#include "comm/device_choice.hpp"
#include "core/buffer.hpp"
#include "core/log.hpp"

#include <string>

using namespace rf;

int main(int argc, char** argv) {
    World world(argc, argv);
    log::set_rank(world.communicator().rank(), world.communicator().size());
    try {
        const std::string what = argc > 1 ? argv[1] : "";
        choose_device(world, "cuda");
        Communicator& all = world.communicator();
        Stream stream(Device::cuda);
        const Buffer memory(4096, Device::cuda);
        for (int update = 0; update < 20; ++update) {
            all.all_reduce(stream, memory.tensor({what == "counts" && all.rank() == 1 ? 7 : 8}, Dtype::f32), ReduceOp::sum);
            if (what == "blocked") all.barrier();  // this rank may wait in MPI when another is lost
            all.wait(stream);
        }
        log::all("done");
    } catch (const UsageError& e) {
        log::info("error: ", e.what());
        return 2;
    } catch (const std::exception& e) {
        log::all("error: ", e.what());
        world.abort(1);
    }
    return 0;
}
