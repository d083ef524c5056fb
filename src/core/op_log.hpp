#pragma once
/// Which ops a program makes, how long each takes and what it has to compute and to move: the table and the traces of `bench`.
/// Off until a log is started; an op then costs two looks at the clock. Logged are ops that are done when they return, those of the
/// CPU, called by the thread that started the log. An op that another one makes counts as part of it.

#include "core/stream.hpp"

#include <array>
#include <vector>

namespace rf {

struct LoggedOp {
    enum class Kind { compute, communication, input, checkpoint };
    const char* name = "";
    Kind kind = Kind::compute;
    std::array<std::int64_t, 3> shape{};  ///< of a product: m, n, k
    double flops = 0;
    double bytes = 0;      ///< to be moved at least: every operand once
    double begin = 0, end = 0;  ///< seconds of the steady clock
    double seconds() const { return end - begin; }
};

/// Collects ops from its construction to its end; one at a time.
class OpLog {
public:
    OpLog();
    ~OpLog();
    OpLog(const OpLog&) = delete;
    OpLog& operator=(const OpLog&) = delete;

    std::vector<LoggedOp> ops;  ///< in the order in which they began

private:
    friend class OpScope;
    static thread_local OpLog* current;
    bool inside_ = false;
};

/// One op, from construction to destruction.
class OpScope {
public:
    OpScope(const Stream& stream, const LoggedOp& op) {
        if (OpLog::current && stream.device() == Device::cpu) begin(op);
    }
    ~OpScope() {
        if (log_) end();
    }
    OpScope(const OpScope&) = delete;
    OpScope& operator=(const OpScope&) = delete;

private:
    void begin(const LoggedOp& op);
    void end();
    OpLog* log_ = nullptr;
    std::size_t at_ = 0;
};

/// The bytes of several tensors, of absent ones none.
template <class... T>
double bytes_of(const T&... tensors) {
    return (static_cast<double>(tensors.bytes()) + ... + 0.0);
}

}  // namespace rf
