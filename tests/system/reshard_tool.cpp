/// Loads a checkpoint under this number of ranks and tensor ranks and writes it again: `[mpirun -n N] reshard_tool IN OUT TENSOR DEVICE`. For
/// reshard_matrix.py, which compares the digests of the two.

#include "comm/device_choice.hpp"
#include "params/checkpoint.hpp"
#include "train/encoder_model.hpp"

#include <cstdlib>
#include <iostream>

int main(int argc, char** argv) {
    using namespace rf;
    World world(argc, argv);
    try {
        if (argc != 5) fail_usage("usage: reshard_tool IN OUT TENSOR DEVICE");
        const std::filesystem::path in = argv[1];
        const Device device = choose_device(world, argv[4]);
        ParallelGrid grid(world.communicator(), std::atoll(argv[3]));
        CheckpointMeta meta = read_checkpoint_meta(in);
        ModelConfig config;
        json::read(json::parse(meta.model, in.string()), config, {in.string(), "model"});
        EncoderModel model(config, grid, {.device = device, .training = true});
        if (!model.load(in)) fail_usage(in.string(), ": has no moments");
        CheckpointWriter writer(argv[2], grid, model.layout(), 1);
        writer.start(model.stream(), model.state(), meta);
        writer.finish();
        return 0;
    } catch (const std::exception& e) {
        std::cerr << "error: " << e.what() << '\n';
        world.abort(1);
    }
}
