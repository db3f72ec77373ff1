// A fuzzer's input taken apart, and the check that reports a finding.
//
// A fuzzer is one function, LLVMFuzzerTestOneInput, that is given bytes and
// calls Require on what must hold; vmbfs_fuzz_target (tools/build/rules.bzl)
// makes a fuzzer and a replay of its corpus of it. tests/corpus/README.md has
// the rest.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <source_location>
#include <span>

namespace vmbfs::hyperv {

// Reads an input from front to back. What is no longer there reads as zero, so
// that every input means something; a loop ends with `empty`.
//
// Thread safety: none.
// Ownership: the bytes must outlive it and all spans it gave out.
class FuzzInput {
 public:
  FuzzInput(const uint8_t* data, size_t size) : left_(std::as_bytes(std::span(data, size))) {}

  bool empty() const { return left_.empty(); }
  size_t left_bytes() const { return left_.size(); }

  // Little-endian numbers.
  uint8_t U8() { return static_cast<uint8_t>(Number(1)); }
  uint16_t U16() { return static_cast<uint16_t>(Number(2)); }
  uint32_t U32() { return static_cast<uint32_t>(Number(4)); }
  uint64_t U64() { return Number(8); }

  // 0 to limit - 1. REQUIRES: 0 < limit <= 65,536.
  uint32_t Below(uint32_t limit) { return (limit <= 256 ? U8() : U16()) % limit; }
  bool OneIn(uint32_t count) { return Below(count) == 0; }

  // The next `bytes`, or as many as there are.
  std::span<const std::byte> Bytes(size_t bytes) {
    const auto taken = left_.first(std::min(bytes, left_.size()));
    left_ = left_.subspan(taken.size());
    return taken;
  }
  std::span<const std::byte> Rest() { return Bytes(left_.size()); }

 private:
  uint64_t Number(size_t bytes) {
    uint64_t value = 0;
    size_t shift = 0;
    for (const std::byte each : Bytes(bytes)) {
      value |= std::to_integer<uint64_t>(each) << shift;
      shift += 8;
    }
    return value;
  }

  std::span<const std::byte> left_;
};

// Reports a finding and ends the process when `holds` is false; `rule` says
// what must hold.
inline void Require(bool holds, const char* rule,
                    std::source_location where = std::source_location::current()) {
  if (holds) [[likely]]
    return;
  std::fprintf(stderr, "%s:%u: broken rule: %s\n", where.file_name(), where.line(), rule);
  std::abort();
}

}  // namespace vmbfs::hyperv
