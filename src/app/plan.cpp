/// roformer plan: what an input of pretrain or multitask needs and costs on a described machine. No run, no GPU.

#include "app/command.hpp"
#include "io/files.hpp"
#include "train/multitask.hpp"
#include "train/plan.hpp"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <filesystem>
#include <iostream>

namespace rf::app {

namespace {

struct PlanSettings {
    json::value machine = boost::json::string("inputs/machine/h100x8.json");  ///< a machine file, or the object itself
    std::int64_t ranks = 0;  ///< 0: those of one node
    double length = 0;       ///< tokens of a sequence on average, [CLS] and [SEP] included; 0: every one is as long as it may be
    double checkpoint_seconds = 0;  ///< that writing a checkpoint took; 0: as long as the machine's storage needs
};
BOOST_DESCRIBE_STRUCT(PlanSettings, (), (machine, ranks, length, checkpoint_seconds))

struct PretrainPlan : PretrainInput {
    PlanSettings plan;
};
BOOST_DESCRIBE_STRUCT(PretrainPlan, (PretrainInput), (plan))

struct MultitaskPlan : MultitaskInput {
    PlanSettings plan;
};
BOOST_DESCRIBE_STRUCT(MultitaskPlan, (MultitaskInput), (plan))

/// What was asked, as a plan takes it.
struct Asked {
    Job job;
    Machine machine;
    std::string machine_name;
    RankSplit split;
};

/// What both commands' inputs say. `in.device` and `in.dtype` must be the machine's.
Asked asked_of(const RunInput& in, const PlanSettings& plan, const ModelConfig& model, std::int64_t max_length, const json::Place& place) {
    const json::Requirements require{place};
    Asked asked{.machine = read_machine(plan.machine, place.at("plan.machine"))};
    const auto* object = plan.machine.if_object();
    const json::value* file = object ? object->if_contains("file") : &plan.machine;
    asked.machine_name = file ? std::string(file->as_string()) + (object ? " with changes" : "") : "the input's machine";
    require(in.device == "auto" || in.device == asked.machine.device, "device", "\"", in.device, "\" is not the machine's, which is \"", asked.machine.device, "\"");
    require(in.dtype == "auto" || in.dtype == "f32" || in.dtype == "bf16", "dtype", "expected \"auto\", \"f32\" or \"bf16\", found \"", in.dtype, "\"");
    Job& job = asked.job;
    job.model = model;
    job.dtype = in.dtype == "bf16" || (in.dtype == "auto" && asked.machine.product_gflops.bf16 > 0) ? Dtype::bf16 : Dtype::f32;
    require(asked.machine.product_gflops.of(job.dtype) > 0, "dtype", asked.machine_name, " has no product_gflops.", name_of(job.dtype));
    require(in.parallel.threads >= 0, "parallel.threads", "expected 0 (share the cores) or a number of threads, found ", in.parallel.threads);
    job.threads = in.parallel.threads;
    job.max_length = max_length;
    require(plan.length == 0 || (plan.length >= 3 && plan.length <= static_cast<double>(max_length)), "plan.length", "expected 0 (all as long as they may be) or 3 to ",
            max_length, ", found ", plan.length);
    job.length = plan.length > 0 ? plan.length : static_cast<double>(max_length);
    require(plan.ranks >= 0 && plan.ranks <= 1 << 16, "plan.ranks", "expected 0 (a node's) to 65536, found ", plan.ranks);
    require(plan.checkpoint_seconds >= 0, "plan.checkpoint_seconds", "expected 0 (by the machine's storage) or seconds, found ", plan.checkpoint_seconds);
    job.checkpoint_seconds = plan.checkpoint_seconds;
    const std::int64_t ranks = plan.ranks > 0 ? plan.ranks : asked.machine.ranks_per_node, tensor = in.parallel.tensor;
    require(tensor >= 1 && ranks % tensor == 0, "parallel.tensor", tensor, " does not divide the ", ranks, " ranks of this plan (ranks = tensor ranks x data ranks)");
    asked.split = {tensor, ranks / tensor};
    in.optimizer.check(place.at("optimizer"));
    return asked;
}

double predicted_share(const Masking& m, const json::Place& place) {
    const double share = m.mask + m.keep + m.random;
    if (!(share > 0 && share <= 1)) fail_usage(place.at("masking"), ": mask, keep and random are shares with a sum above 0 and up to 1");
    return share;
}

Asked asked_of(const PretrainPlan& in, const json::Place& place) {
    in.batch.check(place.at("batch"));
    Asked asked = asked_of(in, in.plan, read_model(in.model, place.at("model")), in.batch.max_length, place);
    asked.job.sequences = in.batch.sequences;
    asked.job.lanes = in.batch.lanes;
    asked.job.predicted = predicted_share(in.masking, place);
    asked.job.evaluated = in.evaluation.documents > 0 ? in.evaluation.group : 0;
    return asked;
}

/// Of a multitask input every micro-step counts as masked language modelling of the longest task's sequences, and heads as nothing.
Asked asked_of(const MultitaskPlan& in, const json::Place& place) {
    const json::Requirements require{place};
    require(!in.tasks.empty(), "tasks", "expected task files");
    require(in.mix.micro_steps >= 1, "mix.micro_steps", "expected at least 1, found ", in.mix.micro_steps);
    require(in.batch.sequences >= in.mix.micro_steps, "batch.sequences", "expected at least mix.micro_steps = ", in.mix.micro_steps, ", found ", in.batch.sequences);
    require(in.batch.lanes >= 1, "batch.lanes", "expected at least 1, found ", in.batch.lanes);
    std::int64_t longest = 3;
    for (const std::string& path : in.tasks) {
        tasks::TaskFile file;
        json::read(json::parse_file(path), file, {path, ""});
        longest = std::max(longest, file.max_length);
    }
    ModelConfig model;
    if (!in.checkpoint.empty() && std::filesystem::exists(in.checkpoint)) {
        const CheckpointMeta meta = read_checkpoint_meta(find_checkpoint(in.checkpoint, message(place.at("checkpoint"), ":")));
        json::read(json::parse(meta.model, in.checkpoint), model, {in.checkpoint, "model"});
        if (in.model.is_object()) json::read(in.model, model, place.at("model"));
    } else {
        if (in.model.is_object() && in.model.as_object().empty())
            fail_usage(place.at("model"), ": the checkpoint ", in.checkpoint, " is not there yet; name its model: --set model=inputs/model/large.json");
        model = read_model(in.model, place.at("model"));
    }
    Asked asked = asked_of(in, in.plan, model, longest, place);
    asked.job.sequences = in.batch.sequences;
    asked.job.lanes = in.batch.lanes;
    asked.job.micro_steps = in.mix.micro_steps;
    asked.job.mixes = in.mix.micro_steps > 1 || in.mix.normalise != "none";
    asked.job.keeps = in.mix.min_norm || in.mix.cosine_every > 0;
    asked.job.predicted = predicted_share(in.masking, place);
    asked.job.evaluated = in.evaluation.documents > 0 ? in.evaluation.group : 0;
    return asked;
}

Asked asked_of(const Invocation& invocation) {
    json::Place place;
    const json::value given = read_input(invocation, place);
    if (!given.is_object()) json::fail_type(place, "an object { … }", given);
    if (given.as_object().contains("tasks")) {
        MultitaskPlan input;
        json::read(given, input, place);
        return asked_of(input, place);
    }
    PretrainPlan input;
    json::read(given, input, place);
    return asked_of(input, place);
}

__attribute__((format(printf, 1, 2))) std::string printed(const char* form, ...) {
    char text[400];
    va_list values;
    va_start(values, form);
    std::vsnprintf(text, sizeof text, form, values);
    va_end(values);
    return text;
}

double gib(double bytes) { return bytes / (1 << 30); }
/// "1.23 GiB", "45.6 MiB", "0 MiB".
std::string size_text(double bytes) { return gib(bytes) >= 1 ? printed("%.2f GiB", gib(bytes)) : printed("%.1f MiB", bytes / (1 << 20)); }

long long whole(std::int64_t n) { return static_cast<long long>(n); }

void print_head(const Asked& asked, const Plan& plan, std::ostream& out) {
    const ModelConfig& m = asked.job.model;
    const std::int64_t ranks = asked.split.ranks(), nodes = (ranks + asked.machine.ranks_per_node - 1) / asked.machine.ranks_per_node;
    out << printed("model    %lld x %lld (%lld heads, %lld inner, vocabulary %lld), %lld parameters\n", whole(m.num_hidden_layers), whole(m.hidden_size),
                   whole(m.num_attention_heads), whole(m.intermediate_size), whole(m.vocab_size), whole(plan.parameters))
        << printed("update   %lld sequences of %.5g tokens in %lld lanes%s, %.0f tokens, %.4g FLOP\n", whole(asked.job.sequences), asked.job.length,
                   whole(asked.job.lanes), asked.job.micro_steps > 1 ? printed(" of each of %lld micro-steps", whole(asked.job.micro_steps)).c_str() : "", plan.tokens,
                   plan.flops)
        << "machine  " << asked.machine_name << " (" << asked.machine.device << ", " << name_of(asked.job.dtype) << "), " << ranks << (ranks == 1 ? " rank" : " ranks") << " on "
        << nodes << (nodes == 1 ? " node\n" : " nodes\n");
}

void print_plan(const Asked& asked, const Plan& plan, std::ostream& out) {
    out << printed("\n%lld tensor x %lld data ranks\n", whole(asked.split.tensor), whole(asked.split.data));
    out << "  memory of a rank\n";
    const auto line = [&](const char* name, double bytes) { out << printed("    %-22s %12s\n", name, size_text(bytes).c_str()); };
    using Kinds = boost::describe::describe_members<MemoryNeed, boost::describe::mod_public>;
    boost::mp11::mp_for_each<Kinds>([&](auto member) { line(member.name, static_cast<double>(plan.memory.*member.pointer)); });
    line("total", static_cast<double>(plan.memory.total()));
    out << printed("    %-22s %12s  %.0f %%\n", "of", size_text(static_cast<double>(plan.memory_limit)).c_str(),
                   100.0 * static_cast<double>(plan.memory.total()) / static_cast<double>(plan.memory_limit));
    out << "  sent by a rank in an update\n";
    using Ways = boost::describe::describe_members<Traffic, boost::describe::mod_public>;
    boost::mp11::mp_for_each<Ways>([&](auto member) { line(member.name, plan.sent.*member.pointer); });
    line("total", plan.sent.total());
    const StepTime& s = plan.seconds;
    const double step = s.total();
    out << printed("  update %.4g s, bound by %s: compute %.4g, memory %.4g, network %.4g (%.4g more beside backward), latency %.4g\n", step, s.bound().c_str(), s.compute,
                   s.memory, s.network, s.hidden, s.latency)
        << printed("  %.4g tokens/s, %.4g sequences/s, %.4g GFLOP/s, %.0f %% of the machine's products\n", plan.tokens / step,
                   static_cast<double>(asked.job.sequences) / step, plan.flops / step * 1e-9, 100 * s.compute / step);
    const CheckpointRhythm& c = plan.checkpoints;
    out << printed("  checkpoint %s in %.3g s, a failure every %.4g h: write one every %s, checkpoint_every=%.0f; %.2g %% of the time for these and for doing again\n",
                   size_text(c.bytes).c_str(), c.write_seconds, c.mtbf_seconds / 3600, duration(c.interval).c_str(), c.updates, 100 * c.lost);
}

void print_splits(const Asked& asked, std::ostream& out) {
    out << "\n  tensor    data      memory      update  sequences/s        sent  bound\n";
    for (const RankSplit& split : splits_of(asked.split.ranks())) {
        const bool mine = split.tensor == asked.split.tensor;
        out << printed("%c %6lld %7lld  ", mine ? '*' : ' ', whole(split.tensor), whole(split.data));
        if (const std::string why = obstacle(asked.job, split); !why.empty()) {
            out << why << '\n';
            continue;
        }
        const Plan plan = make_plan(asked.job, split, asked.machine);
        const double step = plan.seconds.total();
        out << printed("%10s %9.4g s %12.4g %11s  %s%s\n", size_text(static_cast<double>(plan.memory.total())).c_str(), step,
                       static_cast<double>(asked.job.sequences) / step, size_text(plan.sent.total()).c_str(), plan.seconds.bound().c_str(),
                       plan.fits() ? "" : ", does not fit");
    }
}

boost::json::object as_json(const RankSplit& split, const Plan& plan) {
    boost::json::object seconds = json::write(plan.seconds).as_object();
    seconds["total"] = plan.seconds.total();
    boost::json::object memory = json::write(plan.memory).as_object();
    memory["total"] = plan.memory.total();
    memory["limit"] = plan.memory_limit;
    boost::json::object sent = json::write(plan.sent).as_object();
    sent["total"] = plan.sent.total();
    return {{"tensor", split.tensor}, {"data", split.data}, {"memory_bytes", memory}, {"sent_bytes", sent}, {"seconds", seconds},
            {"bound", plan.seconds.bound()}, {"checkpoints", json::write(plan.checkpoints)}, {"fits", plan.fits()}};
}

void write_json(const Asked& asked, const std::string& path) {
    boost::json::array splits;
    boost::json::object root{{"machine", asked.machine_name}, {"ranks", asked.split.ranks()}, {"tensor", asked.split.tensor},
                             {"parameters", asked.job.model.parameter_count()}, {"dtype", std::string(name_of(asked.job.dtype))}};
    for (const RankSplit& split : splits_of(asked.split.ranks())) {
        if (!obstacle(asked.job, split).empty()) continue;
        const Plan plan = make_plan(asked.job, split, asked.machine);
        root["tokens"] = plan.tokens;
        root["flops"] = plan.flops;
        splits.push_back(as_json(split, plan));
    }
    root["splits"] = splits;
    write_file_atomically(path, json::pretty(root));
}

/// What would fit, for the error's end.
std::string remedies_text(const Asked& asked) {
    const std::vector<Remedy> remedies = find_remedies(asked.job, asked.split, asked.machine);
    if (remedies.empty()) return "; no change of up to three of lanes, ranks, evaluation group and dtype would";
    std::string text = remedies.size() == 1 ? "; this would: " : "; each of these would: ";
    for (std::size_t i = 0; i < remedies.size(); ++i)
        text += message(i ? ", " : "", remedies[i].settings, " (", size_text(static_cast<double>(remedies[i].plan.memory.total())), ")");
    return text;
}

}  // namespace

int run_plan(const Invocation& invocation, World& world) {
    if (world.communicator().size() > 1) fail_usage("plan runs on one rank; plan.ranks says how many are planned for");
    const Asked asked = asked_of(invocation);
    const std::string where = invocation.positional.empty() ? "--set" : invocation.positional[0];
    if (const std::string json = invocation.option("json", ""); !json.empty()) write_json(asked, json);
    if (const std::string why = obstacle(asked.job, asked.split); !why.empty()) {
        print_splits(asked, std::cout);
        std::cout << std::flush;
        fail_usage(where, ": ", why, " (", asked.split.tensor, " tensor x ", asked.split.data, " data ranks)", remedies_text(asked));
    }
    const Plan plan = make_plan(asked.job, asked.split, asked.machine);
    print_head(asked, plan, std::cout);
    print_plan(asked, plan, std::cout);
    print_splits(asked, std::cout);
    std::cout << std::flush;
    if (!plan.fits())
        fail_usage(where, ": a rank needs ", size_text(static_cast<double>(plan.memory.total())), " and has ", size_text(static_cast<double>(plan.memory_limit)),
                   remedies_text(asked));
    return 0;
}

json::value plan_defaults() { return defaults_of<PretrainPlan>(); }

}  // namespace rf::app
