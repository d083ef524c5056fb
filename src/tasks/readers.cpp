#include "tasks/readers.hpp"

#include "io/text_input.hpp"
#include "tasks/gaps.hpp"
#include "tasks/joined.hpp"
#include "text/unicode.hpp"

#include <boost/regex.hpp>

#include <algorithm>
#include <filesystem>
#include <optional>

namespace rf::tasks {

namespace {

using boost::json::object;

/// Rows of one format from the lines of files.
class RowReader {
public:
    RowReader(std::vector<std::string> files, const std::string& format, const std::vector<std::string>& columns, const std::string& pattern)
        : files_(std::move(files)), lines_(files_), format_(format), columns_(columns) {
        if (!pattern.empty()) pattern_ = compile_pattern(pattern);
    }

    /// Calls act(record, place).
    template <class Act, class Bad>
    void run(Act&& act, Bad&& bad) {
        if (format_ == "json") return whole_files(act);
        if (format_ == "conll") return sentences(act);
        std::string line;
        while (lines_.next(line)) {
            const RowPlace place{lines_.path(), lines_.line_number()};
            if (is_blank(line) && format_ != "blocks") continue;
            try {
                if (std::optional<json::value> record = one(line)) act(*std::move(record), place);
            } catch (const BadRow& e) {
                bad(e, place);
            }
        }
    }

private:
    /// Python writes a missing number as NaN, which JSON does not know.
    static void nan_to_null(std::string& text) {
        bool quoted = false;
        for (std::size_t i = 0; i < text.size(); ++i) {
            if (quoted && text[i] == '\\') ++i;
            else if (text[i] == '"') quoted = !quoted;
            else if (!quoted && text[i] == 'N' && text.compare(i, 3, "NaN") == 0) text.replace(i, 3, "null");
        }
    }

    template <class Act>
    void whole_files(Act& act) {
        for (const std::string& file : files_) {
            std::string text, line;
            for (LineReader lines({file}); lines.next(line);) text += line + '\n';
            nan_to_null(text);
            json::value all = json::parse(text, file);
            if (auto* list = all.if_array()) {
                std::int64_t number = 0;
                for (json::value& item : *list) act(std::move(item), RowPlace{file, ++number, true});
            } else {
                act(std::move(all), RowPlace{file, 1, true});
            }
        }
    }

    std::optional<json::value> one(std::string& line) {
        if (format_ == "jsonl") return json_line(line);
        if (format_ == "tsv") return cells(split_tabs(line));
        if (format_ == "csv") return cells(csv_record(line));
        if (format_ == "pattern") return groups(line);
        if (format_ == "blocks") return block(line);
        return numbered(line);
    }

    static json::value json_line(const std::string& line) {
        boost::system::error_code error;
        json::value v = boost::json::parse(line, error);
        if (error) bad_row("not valid JSON (", error.message(), ")");
        return v;
    }

    static std::vector<std::string> split_tabs(const std::string& line) {
        std::vector<std::string> out;
        for (std::size_t from = 0;;) {
            const std::size_t tab = line.find('\t', from);
            out.push_back(line.substr(from, tab - from));
            if (tab == std::string::npos) return out;
            from = tab + 1;
        }
    }

    /// RFC 4180; a quoted cell may go on over lines.
    std::vector<std::string> csv_record(std::string line) {
        std::vector<std::string> out(1);
        bool quoted = false;
        for (std::size_t i = 0;; ++i) {
            if (i == line.size()) {
                if (!quoted) return out;
                out.back() += '\n';
                if (!lines_.next(line)) bad_row("a quote is opened and not closed before the end of the file");
                i = static_cast<std::size_t>(-1);
            } else if (quoted && line[i] == '"') {
                if (i + 1 < line.size() && line[i + 1] == '"') out.back() += line[++i];
                else quoted = false;
            } else if (!quoted && line[i] == '"' && out.back().empty()) {
                quoted = true;
            } else if (!quoted && line[i] == ',') {
                out.emplace_back();
            } else {
                out.back() += line[i];
            }
        }
    }

    std::optional<json::value> cells(std::vector<std::string> values) {
        if (columns_.empty()) names_of_ = lines_.file_index(), columns_ = values, from_file_ = true;
        if (from_file_ && lines_.line_number() == 1) {
            if (values != columns_) bad_row("the names of the columns differ from those of ", files_[names_of_]);
            return std::nullopt;
        }
        // Spreadsheets leave empty cells behind the last column.
        while (values.size() > columns_.size() && values.back().empty()) values.pop_back();
        if (values.size() != columns_.size()) bad_row("expected ", columns_.size(), " columns, found ", values.size());
        object out;
        for (std::size_t i = 0; i < values.size(); ++i)
            if (!columns_[i].empty()) out[columns_[i]] = values[i];
        return out;
    }

    json::value groups(const std::string& line) const {
        boost::smatch match;
        if (!boost::regex_match(line, match, pattern_)) bad_row("the line does not match the pattern \"", pattern_.str(), "\"");
        if (match.size() != columns_.size() + 1) bad_row("the pattern has ", match.size() - 1, " groups for ", columns_.size(), " columns");
        object out;
        for (std::size_t i = 0; i < columns_.size(); ++i) out[columns_[i]] = match[static_cast<int>(i) + 1].str();
        return out;
    }

    std::optional<json::value> block(const std::string& line) {
        if (lines_.line_number() == 1) block_.clear();
        block_.push_back(line);
        if (block_.size() < columns_.size()) return std::nullopt;
        object out;
        for (std::size_t i = 0; i < columns_.size(); ++i)
            if (!columns_[i].empty()) out[columns_[i]] = block_[i];
        block_.clear();
        return out;
    }

    std::optional<json::value> numbered(const std::string& line) {
        const std::size_t bar = line.find(" ||| ");
        if (bar == std::string::npos) bad_row("expected \"number ||| text\"");
        std::string text = line.substr(bar + 5);
        std::erase(text, ' ');  // its words are set apart
        if (!line.starts_with('<')) {
            document_ += (document_.empty() ? "" : "\n") + text;
            return std::nullopt;
        }
        object out{{"id", line.substr(0, bar)}, {"query", text}, {"document", std::move(document_)}};
        document_.clear();
        return out;
    }

    template <class Act>
    void sentences(Act& act) {
        std::string line;
        Sentence sentence;
        const auto finish = [&] {
            if (!sentence.text.empty()) act(json::value(sentence.finish()), sentence.place);
            sentence = {};
        };
        while (lines_.next(line)) {
            const RowPlace place{lines_.path(), lines_.line_number()};
            if (place.line == 1 || is_blank(line)) finish();
            if (is_blank(line)) continue;
            try {
                const auto [token, tag] = token_and_tag(line);
                sentence.add(token, tag, place);
            } catch (const Error& e) {
                fail_usage(place, ": ", e.what());
            }
        }
        finish();
    }

    std::pair<std::string, std::string> token_and_tag(const std::string& line) const {
        if (!pattern_.empty()) {
            boost::smatch match;
            if (!boost::regex_match(line, match, pattern_) || match.size() != 3)
                bad_row("the line does not match the pattern \"", pattern_.str(), "\" of two groups");
            return {match[1].str(), match[2].str()};
        }
        const std::size_t last = line.find_last_not_of(" \t"), blank = line.find_last_of(" \t", last);
        if (blank == std::string::npos) bad_row("expected a character and a tag, found \"", line, "\"");
        const std::size_t end = line.find_last_not_of(" \t", blank);
        // A blank is a character too where text is split into characters.
        return {end == std::string::npos ? line.substr(0, std::max<std::size_t>(blank, 1)) : line.substr(0, end + 1),
                line.substr(blank + 1, last - blank)};
    }

    /// A sentence that grows by a character a line.
    struct Sentence {
        std::string text, open;  ///< `open`: type of the entity that may go on
        std::int64_t characters = 0, begin = 0;
        boost::json::array entities;
        RowPlace place;

        void close() {
            if (!open.empty()) entities.push_back(object{{"type", open}, {"start", begin}, {"end", characters}});
            open.clear();
        }
        void add(const std::string& token, const std::string& tag, const RowPlace& at) {
            if (text.empty()) place = at;
            const bool outside = tag == "O";
            if (!outside && (tag.size() < 3 || tag[1] != '-' || std::string_view("BIMES").find(tag[0]) == std::string_view::npos))
                bad_row("\"", tag, "\" is no tag (expected O, or B- I- M- E- S- and a type)");
            const std::string type = outside ? "" : tag.substr(2);
            const bool goes_on = !outside && tag[0] != 'B' && tag[0] != 'S' && type == open;
            if (!goes_on) close();
            // An entity that starts with I- begins there, as the usual scorers take it.
            if (!outside && !goes_on) open = type, begin = characters;
            characters += static_cast<std::int64_t>(decode_utf8(token).size());
            text += token;
            if (!outside && (tag[0] == 'E' || tag[0] == 'S')) close();
        }
        object finish() {
            close();
            return {{"text", text}, {"entities", std::move(entities)}};
        }
    };

    std::vector<std::string> files_;
    LineReader lines_;
    std::string format_;
    std::vector<std::string> columns_;
    boost::regex pattern_;
    bool from_file_ = false;
    std::size_t names_of_ = 0;
    std::vector<std::string> block_;
    std::string document_;
};

}  // namespace

std::ostream& operator<<(std::ostream& out, const RowPlace& place) {
    return out << place.file << (place.is_record ? ": record " : ":") << place.line;
}

const std::vector<std::string>& formats() {
    static const std::vector<std::string> all{"jsonl", "json", "tsv", "csv", "conll", "pattern", "blocks", "cmrc2017"};
    return all;
}

void read_rows(const std::vector<std::string>& files, const Reader& reader, const RowAction& act, const BadRowAction& bad) {
    const Joined partners(reader.join);
    const Gaps gaps(reader.blanks);
    const auto take = [&](json::value record, const RowPlace& place) {
        const Row whole(std::make_shared<const json::value>(std::move(record)), place.line);
        const auto one = [&](const Row& row) {
            try {
                act(partners.find(row), place);
            } catch (const BadRow& e) {
                bad(e, place);
            }
        };
        try {
            for_each_item(whole, reader.each, [&](const Row& item) {
                for (const Row& row : gaps.rows(item)) one(row);
            });
        } catch (const BadRow& e) {
            bad(e, place);
        } catch (const Utf8Error& e) {
            fail_usage(place, ": ", e.what());
        }
    };
    RowReader(files, reader.format, reader.columns, reader.pattern).run(take, bad);
}

std::vector<std::string> files_below(const std::string& data, const json::value& files, const json::Place& place) {
    json::value absolute = files;
    const auto below = [&](json::value& v) {
        if (!v.is_string() || v.as_string().empty()) json::fail_type(place, "a file or a list of files", v);
        const std::filesystem::path path = std::string(v.as_string());
        // A task file may come from anyone: it reads nothing outside the folder given.
        if (path.is_absolute() || *path.lexically_normal().begin() == "..")
            fail_usage(place, ": ", path.string(), " leaves the folder ", data, " that paths of a task start from (`data`)");
        v = (std::filesystem::path(data) / path).string();
    };
    if (auto* list = absolute.if_array()) std::for_each(list->begin(), list->end(), below);
    else below(absolute);
    return expand_paths(absolute, place);
}

}  // namespace rf::tasks
