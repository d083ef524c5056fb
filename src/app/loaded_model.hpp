#pragma once
/// A checkpoint ready for use on text: what `encode` and `fill-mask` share.

#include "app/command.hpp"
#include "text/tokenizer.hpp"
#include "text/vocabulary.hpp"
#include "train/encoder_model.hpp"

#include <istream>

namespace rf::app {

class LoadedModel {
public:
    /// Options --checkpoint (a checkpoint, or an output folder: its newest) and, optionally, --vocab (else the
    /// vocabulary kept in the checkpoint) and --dtype. `with_task`: with the head it was fine-tuned for; a UsageError where there is none.
    LoadedModel(const Invocation& invocation, World& world, bool with_task = false);

    const Vocabulary& vocab() const { return *vocab_; }
    const Tokenizer& tokenizer() const { return *tokenizer_; }
    EncoderModel& model() { return *model_; }
    ParallelGrid& grid() { return grid_; }
    /// Longest line that encode and fill-mask take, in tokens with [CLS] and [SEP]: 4096, or the model's learned positions.
    std::int64_t longest_line() const { return longest_; }
    /// Residual weight the checkpoint was saved with.
    double alpha() const { return alpha_; }

    const tasks::Task& task() const { return model_->heads().front().task; }

private:
    Device device_;  ///< chosen before the ranks are split into groups
    ParallelGrid grid_;
    double alpha_ = 1;
    std::int64_t longest_ = 4096;
    std::unique_ptr<Vocabulary> vocab_;
    std::unique_ptr<Tokenizer> tokenizer_;
    std::unique_ptr<EncoderModel> model_;
};

/// All lines of standard input, on every rank (rank 0 reads). A UsageError when there is none.
std::vector<std::string> read_lines(Communicator& world, std::istream& in);

}  // namespace rf::app
