#include "core/hive/hive_diff.h"

#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/hive/data_text.h"
#include "core/hive/reg_text.h"
#include "core/path/windows_case.h"

namespace vmbfs::hive {
namespace {

using KeyId = RegistryTree::KeyId;

struct NameLess {
  bool operator()(std::u16string_view a, std::u16string_view b) const {
    return CompareNames(a, b) < 0;
  }
};

// What each side has of a name.
template <typename Item>
using BySide =
    std::map<std::u16string_view, std::pair<std::optional<Item>, std::optional<Item>>, NameLess>;

class Difference {
 public:
  Difference(const RegistryTree& first, const RegistryTree& second, const LineSink& line,
             size_t reg_bytes_max)
      : first_(first), second_(second), line_(line), reg_bytes_max_(reg_bytes_max) {}

  HiveDifferences Find();

 private:
  using Sides = std::pair<std::optional<KeyId>, std::optional<KeyId>>;

  void CompareKeys(const Sides& sides);
  void CompareValues(const Sides& sides, std::string& reg_lines);
  void Line(const char* sign, std::string text) {
    differences_.same = false;
    line_(absl::StrCat(sign, " ", text));
  }

  // A key's line and those of its values, while there is room.
  void RegKey(const RegistryTree& tree, KeyId id, bool deletion, const std::string& values);

  const RegistryTree& first_;
  const RegistryTree& second_;
  const LineSink& line_;
  const size_t reg_bytes_max_;
  HiveDifferences differences_{.lines = {}, .reg_file = kRegFileHeader};
  std::vector<Sides> waiting_;
};

HiveDifferences Difference::Find() {
  waiting_.push_back({RegistryTree::kRoot, RegistryTree::kRoot});
  while (!waiting_.empty()) {
    const Sides sides = waiting_.back();
    waiting_.pop_back();
    CompareKeys(sides);
  }
  return std::move(differences_);
}

// REQUIRES: one side has the key at least.
void Difference::CompareKeys(const Sides& sides) {
  const auto& [before, after] = sides;
  if (!after.has_value()) {
    Line("-", absl::StrCat("key ", KeyPathText(first_, *before)));
    return RegKey(first_, *before, true, "");
  }
  if (!before.has_value()) Line("+", absl::StrCat("key ", KeyPathText(second_, *after)));
  std::string reg_lines;
  CompareValues(sides, reg_lines);
  if (*after != RegistryTree::kRoot && (!before.has_value() || !reg_lines.empty())) {
    RegKey(second_, *after, false, reg_lines);
  }
  BySide<KeyId> subkeys;
  if (before.has_value()) {
    for (const KeyId id : first_.key(*before).subkeys) subkeys[first_.key(id).name].first = id;
  }
  for (const KeyId id : second_.key(*after).subkeys) subkeys[second_.key(id).name].second = id;
  for (auto each = subkeys.rbegin(); each != subkeys.rend(); ++each) {
    waiting_.push_back(each->second);
  }
}

void Difference::RegKey(const RegistryTree& tree, KeyId id, bool deletion,
                        const std::string& values) {
  if (!differences_.reg_file_is_whole) return;
  const std::string line = RegKeyLine(tree, id, deletion);
  const std::string_view behind = PathFitsALine(tree, id) ? values : std::string_view();
  if (differences_.reg_file.size() + line.size() + behind.size() + 2 > reg_bytes_max_) {
    differences_.reg_file_is_whole = false;
    return;
  }
  differences_.reg_file.append("\n").append(line).append("\n").append(behind);
}

void Difference::CompareValues(const Sides& sides, std::string& reg_lines) {
  const auto& [before, after] = sides;
  BySide<const RegistryValue*> values;
  if (before.has_value()) {
    for (const RegistryValue& value : first_.key(*before).values) values[value.name].first = &value;
  }
  for (const RegistryValue& value : second_.key(*after).values) values[value.name].second = &value;
  for (const auto& [name, pair] : values) {
    const auto& [old_value, new_value] = pair;
    if (!new_value.has_value()) {
      Line("-",
           absl::StrCat(ValuePathText(first_, *before, **old_value), " = ", DataText(**old_value)));
      absl::StrAppend(&reg_lines, RegValueLine(**old_value, true), "\n");
      continue;
    }
    const RegistryValue& value = **new_value;
    if (old_value.has_value()) {
      if ((*old_value)->type == value.type && (*old_value)->data == value.data) continue;
      const bool types = (*old_value)->type != value.type;
      Line("~", absl::StrCat(ValuePathText(second_, *after, value), ": ", DataText(**old_value),
                             types ? " " : "", types ? TypeText((*old_value)->type) : "", " -> ",
                             DataText(value), types ? " " : "", types ? TypeText(value.type) : ""));
    } else {
      Line("+", absl::StrCat(ValuePathText(second_, *after, value), " = ", DataText(value)));
    }
    absl::StrAppend(&reg_lines, RegValueLine(value), "\n");
  }
}

}  // namespace

HiveDifferences DiffTrees(const RegistryTree& first, const RegistryTree& second,
                          const LineSink& line, size_t reg_bytes_max) {
  return Difference(first, second, line, reg_bytes_max).Find();
}

HiveDifferences DiffTrees(const RegistryTree& first, const RegistryTree& second,
                          size_t reg_bytes_max) {
  std::vector<std::string> lines;
  const LineSink keep = [&lines](const std::string& line) { lines.push_back(line); };
  HiveDifferences differences = Difference(first, second, keep, reg_bytes_max).Find();
  differences.lines = std::move(lines);
  return differences;
}

}  // namespace vmbfs::hive
