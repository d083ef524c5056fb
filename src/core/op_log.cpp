#include "core/op_log.hpp"

#include <chrono>

namespace rf {

namespace {
double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
}  // namespace

thread_local OpLog* OpLog::current = nullptr;

OpLog::OpLog() {
    RF_REQUIRE(!current, "one log at a time");
    current = this;
}

OpLog::~OpLog() { current = nullptr; }

void OpScope::begin(const LoggedOp& op) {
    OpLog& log = *OpLog::current;
    if (log.inside_) return;
    log.inside_ = true;
    log_ = &log;
    at_ = log.ops.size();
    log.ops.push_back(op);
    log.ops.back().begin = now();
}

void OpScope::end() {
    log_->ops[at_].end = now();
    log_->inside_ = false;
}

}  // namespace rf
