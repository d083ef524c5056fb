#include "tasks/report.hpp"

#include <algorithm>

namespace rf::tasks {

namespace {

constexpr std::size_t labels_shown = 6;

void print_reasons(const std::map<std::string, std::int64_t>& reasons, const char* head, std::ostream& out) {
    for (const auto& [why, n] : reasons) out << "    " << head << ' ' << n << ": " << why << '\n';
}

void print_histogram(const std::map<std::string, std::int64_t>& histogram, std::ostream& out) {
    std::vector<std::pair<std::string, std::int64_t>> sorted(histogram.begin(), histogram.end());
    std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
    out << "    labels ";
    for (std::size_t i = 0; i < std::min(sorted.size(), labels_shown); ++i) out << (i ? ", " : "") << sorted[i].first << ' ' << sorted[i].second;
    if (sorted.size() > labels_shown)
        out << ", " << sorted.size() - labels_shown << " more, the rarest " << sorted.back().first << ' ' << sorted.back().second;
    out << '\n';
}

}  // namespace

void print_report(const Task& task, const PreparedTask& prepared, std::ostream& out) {
    out << task.file.name << " (" << task.file.kind;
    if (task.label_count() > 0) out << ", " << task.label_count() << " labels";
    out << ", max_length " << task.file.max_length << ")\n";
    for (const Split split : splits) {
        const Counts& c = prepared.counts[static_cast<int>(split)];
        if (c.rows == 0) continue;
        out << "  " << name(split) << ": " << c.kept << " of " << c.rows << " rows kept; " << c.examples << " examples, " << c.sequences
            << " sequences, " << c.tokens << " tokens, " << c.truncated << " cut short; lengths " << c.lengths[0] << " to " << c.lengths[4]
            << " (half " << c.lengths[1] << ", 9 of 10 " << c.lengths[2] << ", 99 of 100 " << c.lengths[3] << ")\n";
        print_reasons(c.dropped, "dropped", out);
        print_reasons(c.lost, "lost", out);
        print_histogram(c.histogram, out);
    }
}

}  // namespace rf::tasks
