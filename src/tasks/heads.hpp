#pragma once
/// What stands behind the encoder for one supervised task: its output layer, its loss, their gradients. Like the model's blocks a head owns
/// no memory and works on a packed batch; its parameters are held whole by every tensor rank, each of which has all of x, so it needs no
/// collective. Initialised like the model (biases: zero); no dropout before it. x are the last hidden states it reads: of the first token of each
/// sequence, [S, C] with rows of padding behind, or of every token, [T, C].

#include "model/step.hpp"
#include "params/layout.hpp"
#include "tasks/outputs.hpp"

#include <memory>
#include <string>

namespace rf::tasks {

/// What is known of one packed batch, on the step's device. A head reads what its kind needs. E examples, S sequences, Q cells.
struct HeadLabels {
    ConstTensor label;       ///< [E] i32 class, or the right one of an example's sequences; -1: does not count
    ConstTensor score;       ///< [S] f32 score or grade; NaN: does not count
    ConstTensor list_begin;  ///< [E+1] i32 sequences of each list of candidates
    ConstTensor cells;       ///< [Q, 3] i32 right cells (kernels/token_pairs.hpp); absent: not known
    ConstTensor cell_begin;  ///< [S+1] i32
    ConstTensor visible;     ///< [S, 2] i32 tokens that may be ends of a pair, half-open
    ConstTensor rotary;      ///< [P, D/2, 2] angles (kernels/rotary.hpp) for the size of a token-pair head
};

class TaskHead {
public:
    virtual ~TaskHead() = default;

    /// sums [2] f64 += { sum over examples of the loss; examples answered rightly }.
    void evaluate(const StepContext& step, const ParamView& weights, const ConstTensor& x, const HeadLabels& labels, const Tensor& sums) const {
        run(step, weights, nullptr, x, labels, 0, {}, sums);
    }
    /// The same, and the gradient of factor * sum of losses: the parameters' (+=) and dx, of x's shape (overwritten). `factor`: 1 / examples
    /// of the whole global batch.
    void forward_backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const ConstTensor& x, const HeadLabels& labels,
                          const Scalar& factor, const Tensor& dx, const Tensor& sums) const {
        run(step, weights, &grads, x, labels, factor, dx, sums);
    }

    /// What it says of the batch's sequences; labels are not read. Waits for the stream.
    virtual Outputs outputs(const StepContext& step, const ParamView& weights, const ConstTensor& x, const HeadLabels& labels) const = 0;
    /// Whether the loss is defined for these examples: a multiple choice has one for examples of as many choices as those it was made for.
    virtual bool fits(const ConstTensor&, const HeadLabels&) const { return true; }
    /// Whether x are the hidden states of every token.
    virtual bool reads_every_token() const { return false; }
    /// Size of the vectors that `labels.rotary` has angles for; 0: it needs none.
    virtual std::int64_t rotary_size() const { return 0; }

protected:
    virtual void run(const StepContext& step, const ParamView& weights, const ParamView* grads, const ConstTensor& x, const HeadLabels& labels,
                     const Scalar& factor, const Tensor& dx, const Tensor& sums) const = 0;
};

/// "task/<task>/<what>": a head's parameter as checkpoints show it.
inline constexpr const char* head_prefix = "task/";
inline std::string head_parameter(const std::string& task, const char* what) { return head_prefix + task + "/" + what; }

/// The head of a task: its kind's (`choices`: see choices_of), with parameters added to the layout.
std::unique_ptr<TaskHead> make_head(const ModelConfig& model, const Task& task, std::int64_t choices, ParamLayout& layout);

}  // namespace rf::tasks
