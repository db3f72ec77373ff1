#include "hyperv/gpadl/gpadl_table.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace vmbfs::hyperv {

absl::Status GpadlTable::CheckNew(const Key& key, size_t range_count, size_t words_expected) const {
  if (gpadls_.contains(key)) {
    return absl::AlreadyExistsError(
        absl::StrCat("channel ", key.first, " has GPADL ", key.second, " already"));
  }
  if (incomplete_.contains(key.second)) {
    return absl::AlreadyExistsError(
        absl::StrCat("GPADL ", key.second, " is incomplete on another channel"));
  }
  if (range_count == 0 || range_count > words_expected / 2) {
    return absl::InvalidArgumentError(
        absl::StrCat(range_count, " ranges cannot stand in ", words_expected, " words"));
  }
  if (gpadls_.size() >= kGpadlsMax) {
    return absl::ResourceExhaustedError(absl::StrCat(kGpadlsMax, " GPADLs exist"));
  }
  if (incomplete_.size() >= kIncompleteMax) {
    return absl::ResourceExhaustedError(absl::StrCat(kIncompleteMax, " GPADLs are incomplete"));
  }
  // Every word that is no range's head counts as a page frame, so that what
  // was promised to one GPADL is not given to the next.
  if (words_expected - range_count > kPageFramesMax - page_count_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("GPADLs of more than ", kPageFramesMax, " pages"));
  }
  return absl::OkStatus();
}

absl::StatusOr<GpadlProgress> GpadlTable::Create(uint32_t channel_id, uint32_t gpadl_id,
                                                 size_t range_buffer_bytes, size_t range_count,
                                                 std::span<const uint64_t> words) {
  const Key key{channel_id, gpadl_id};
  const size_t words_expected = range_buffer_bytes / sizeof(uint64_t);
  if (absl::Status checked = CheckNew(key, range_count, words_expected); !checked.ok()) {
    return checked;
  }
  const Map::iterator entry = gpadls_.try_emplace(key).first;
  entry->second.range_count = range_count;
  entry->second.words_expected = words_expected;
  entry->second.words.reserve(words_expected);  // CheckNew bounds it
  entry->second.page_count = words_expected - range_count;
  page_count_ += entry->second.page_count;
  incomplete_.emplace(gpadl_id, channel_id);
  return Add(entry, words);
}

std::optional<GpadlTable::Appended> GpadlTable::Append(uint32_t gpadl_id,
                                                       std::span<const uint64_t> words) {
  const auto incomplete = incomplete_.find(gpadl_id);
  if (incomplete == incomplete_.end()) return std::nullopt;
  const uint32_t channel_id = incomplete->second;
  return Appended{.channel_id = channel_id,
                  .progress = Add(gpadls_.find({channel_id, gpadl_id}), words)};
}

absl::StatusOr<GpadlProgress> GpadlTable::Add(Map::iterator entry,
                                              std::span<const uint64_t> words) {
  Gpadl& gpadl = entry->second;
  words = words.first(std::min(words.size(), gpadl.words_expected - gpadl.words.size()));
  gpadl.words.insert(gpadl.words.end(), words.begin(), words.end());
  if (gpadl.words.size() < gpadl.words_expected) return GpadlProgress::kIncomplete;

  absl::StatusOr<PageRanges> ranges = PageRanges::Parse(gpadl.words, gpadl.range_count);
  if (!ranges.ok()) {
    Erase(entry);
    return ranges.status();
  }
  incomplete_.erase(entry->first.second);
  gpadl.words = {};
  page_count_ -= gpadl.page_count - ranges->page_count();
  gpadl.page_count = ranges->page_count();
  gpadl.ranges = *std::move(ranges);
  gpadl.state = State::kAccepted;
  return GpadlProgress::kAccepted;
}

GpadlTeardown GpadlTable::Teardown(uint32_t channel_id, uint32_t gpadl_id) {
  const Map::iterator entry = gpadls_.find({channel_id, gpadl_id});
  if (entry == gpadls_.end() || entry->second.state != State::kAccepted) {
    return GpadlTeardown::kRefused;
  }
  if (entry->second.held) {
    entry->second.state = State::kTearingDown;
    return GpadlTeardown::kDeferred;
  }
  Erase(entry);
  return GpadlTeardown::kGone;
}

const PageRanges* GpadlTable::Hold(uint32_t channel_id, uint32_t gpadl_id) {
  const Map::iterator entry = gpadls_.find({channel_id, gpadl_id});
  if (entry == gpadls_.end() || entry->second.state != State::kAccepted) return nullptr;
  entry->second.held = true;
  return &*entry->second.ranges;
}

bool GpadlTable::Unhold(uint32_t channel_id, uint32_t gpadl_id) {
  const Map::iterator entry = gpadls_.find({channel_id, gpadl_id});
  entry->second.held = false;
  const State state = entry->second.state;
  if (state == State::kTearingDown || state == State::kAbandoned) Erase(entry);
  return state == State::kTearingDown;
}

void GpadlTable::EraseChannel(uint32_t channel_id) {
  Map::iterator entry = gpadls_.lower_bound({channel_id, 0});
  while (entry != gpadls_.end() && entry->first.first == channel_id) entry = Forget(entry);
}

void GpadlTable::EraseAll() {
  for (Map::iterator entry = gpadls_.begin(); entry != gpadls_.end();) entry = Forget(entry);
}

size_t GpadlTable::count_of(uint32_t channel_id) const {
  size_t count = 0;
  for (auto entry = gpadls_.lower_bound({channel_id, 0});
       entry != gpadls_.end() && entry->first.first == channel_id; ++entry) {
    ++count;
  }
  return count;
}

GpadlTable::Map::iterator GpadlTable::Erase(Map::iterator entry) {
  if (entry->second.state == State::kIncomplete) incomplete_.erase(entry->first.second);
  page_count_ -= entry->second.page_count;
  return gpadls_.erase(entry);
}

GpadlTable::Map::iterator GpadlTable::Forget(Map::iterator entry) {
  if (!entry->second.held) return Erase(entry);
  entry->second.state = State::kAbandoned;
  return std::next(entry);
}

}  // namespace vmbfs::hyperv
