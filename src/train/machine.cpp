#include "train/machine.hpp"

namespace rf {

namespace {

/// What a machine does not say of itself has no default.
void require_all(const json::value& given, const json::value& known, const json::Place& place) {
    for (const auto& [key, value] : known.as_object()) {
        const auto* found = given.as_object().if_contains(key);
        if (!found) fail_usage(place.at(key), ": missing (a machine needs every key)");
        if (value.is_object() && found->is_object()) require_all(*found, value, place.at(key));
    }
}

void check(const Machine& m, const json::Place& place) {
    const json::Requirements require{place};
    const auto positive = [&](double x, const char* key) { require(x > 0, key, "expected a number above 0, found ", x); };
    const auto not_negative = [&](double x, const char* key) { require(x >= 0, key, "expected 0 or more, found ", x); };
    require(m.device == "cpu" || m.device == "cuda", "device", "expected \"cpu\" or \"cuda\", found \"", m.device, "\"");
    require(m.ranks_per_node >= 1, "ranks_per_node", "expected at least 1, found ", m.ranks_per_node);
    require(m.cores_per_node >= 1, "cores_per_node", "expected at least 1, found ", m.cores_per_node);
    positive(m.memory_gib, "memory_gib");
    not_negative(m.program_mib, "program_mib");
    not_negative(m.product_gflops.f32, "product_gflops.f32");
    not_negative(m.product_gflops.bf16, "product_gflops.bf16");
    require(m.product_gflops.f32 + m.product_gflops.bf16 > 0, "product_gflops", "expected the rate of one dtype at least");
    require(m.product_gflops.f32 == 0 || m.attention_gflops.f32 > 0, "attention_gflops.f32", "expected a number above 0, found ", m.attention_gflops.f32);
    require(m.product_gflops.bf16 == 0 || m.attention_gflops.bf16 > 0, "attention_gflops.bf16", "expected a number above 0, found ", m.attention_gflops.bf16);
    positive(m.row_gb_per_s, "row_gb_per_s");
    positive(m.memory_gb_per_s, "memory_gb_per_s");
    not_negative(m.launch_us, "launch_us");
    positive(m.inside.gb_per_s, "inside.gb_per_s");
    not_negative(m.inside.latency_us, "inside.latency_us");
    positive(m.between.gb_per_s, "between.gb_per_s");
    not_negative(m.between.latency_us, "between.latency_us");
    positive(m.storage_gb_per_s, "storage_gb_per_s");
    positive(m.node_mtbf_hours, "node_mtbf_hours");
}

}  // namespace

Machine read_machine(const json::value& v, const json::Place& place) {
    Machine machine;
    if (v.is_string()) {
        const std::string path(v.as_string());
        const json::Place inside{path, ""};
        const json::value file = json::parse_file(path);
        json::read(file, machine, inside);
        require_all(file, json::write(Machine{}), inside);
        check(machine, inside);
        return machine;
    }
    if (!v.is_object()) json::fail_type(place, "a machine file or an object { … }", v);
    boost::json::object overrides = v.as_object();
    const auto* file = overrides.if_contains("file");
    if (file) {
        if (!file->is_string()) json::fail_type(place.at("file"), "a machine file", *file);
        machine = read_machine(*file, place);
        overrides.erase("file");
    } else {
        require_all(v, json::write(Machine{}), place);
    }
    json::read(overrides, machine, place);
    check(machine, place);
    return machine;
}

}  // namespace rf
