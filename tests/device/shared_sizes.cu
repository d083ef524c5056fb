/// Dynamic shared memory of the attention kernels, for the static report: kernel, template argument ("-": any), bytes. The other
/// kernels take less than 9 KiB, which decides nothing.

#include "kernels/nvidia/attention_plain.cuh"
#include "kernels/nvidia/attention_tensor_gradient.cuh"

#include <cstdio>

int main() {
    using namespace rf::device;
    std::printf("attention_tensor - %zu\n", sizeof(ForwardTiles));
    std::printf("attention_query_gradient - %zu\n", sizeof(QueryTiles));
    std::printf("attention_key_gradient - %zu\n", sizeof(KeyTiles));
    for (const char* kernel : {"attention_plain", "attention_plain_gradient"})
        std::printf("%s 64 %zu\n%s 128 %zu\n", kernel, sizeof(PlainTiles<64>), kernel, sizeof(PlainTiles<128>));
    return 0;
}
