// A session against the table of shared/specs/vmbfs.md, "What a broken request
// gets": any bytes get exactly the answer it names, and a fault only where it
// names one.
//
// Input: messages; each is a byte that chooses its form, and then its fields or
// its bytes.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/backing/backing.h"
#include "core/backing/directory.h"
#include "core/backing/memory_file.h"
#include "core/path/guest_path.h"
#include "core/path/windows_case.h"
#include "core/vmbfs/message_bytes.h"
#include "core/vmbfs/session.h"
#include "hyperv/fuzz_input/fuzz_input.h"

namespace vmbfs {
namespace {

using hyperv::FuzzInput;
using hyperv::Require;

constexpr int kMessagesMax = 64;
constexpr size_t kHiveBytes = 30'000;

Bytes Pattern(size_t bytes) {
  Bytes pattern(bytes);
  for (size_t i = 0; i < bytes; ++i) pattern[i] = static_cast<std::byte>(i * 31 + (i >> 8));
  return pattern;
}

// The tree that is served: a hive in the root, and a directory with two files.
class Tree final : public Backing {
 public:
  const File* Find(const GuestPath& path) const override {
    if (path.is_root()) return &root_;
    if (path.above_root()) return nullptr;
    if (Is(path, u"imc.hiv")) return &hive_;
    if (Is(path, u"efi")) return &directory_;
    if (Is(path, u"efi/small")) return &small_;
    if (Is(path, u"efi/empty")) return &empty_;
    return nullptr;
  }
  std::string Describe() const override { return "a tree"; }

  static const Bytes& hive_bytes() {
    static const Bytes bytes = Pattern(kHiveBytes);
    return bytes;
  }

 private:
  static bool Is(const GuestPath& path, std::u16string_view name) {
    return CompareNames(path.text(), name) == 0;
  }

  Directory root_;
  Directory directory_;
  MemoryFile hive_{hive_bytes()};
  MemoryFile small_{Pattern(100)};
  MemoryFile empty_{{}};
};

uint64_t NumberAt(std::span<const std::byte> bytes, size_t offset, size_t size) {
  uint64_t value = 0;
  for (size_t i = size; i > 0; --i) {
    value = value << 8 | std::to_integer<uint64_t>(bytes[offset + i - 1]);
  }
  return value;
}

// What the table says; knows the tree by its names and sizes.
class Model {
 public:
  explicit Model(uint64_t rdma_bytes_min) : rdma_bytes_min_(rdma_bytes_min) {}

  // nullopt: the channel is faulted.
  std::optional<Bytes> AnswerTo(std::span<const std::byte> message) {
    if (message.size() < 8 || message.size() > 12'288) return std::nullopt;
    switch (NumberAt(message, 0, 4)) {
      case 1:
        return Version(message);
      case 3:
        return Info(message);
      case 5:
        return Read(message);
      case 7:
        return Rdma(message);
      default:
        return std::nullopt;
    }
  }

 private:
  struct Found {
    bool exists = false;
    bool directory = false;
    size_t bytes = 0;
  };
  // nullopt: the path is malformed.
  static std::optional<Found> Find(std::span<const std::byte> utf16le) {
    const auto path = GuestPath::Parse(utf16le);
    if (!path.ok()) return std::nullopt;
    if (path->above_root()) return Found{};
    std::string name = Utf8FromUtf16(path->text());
    for (char& each : name) {
      if (each >= 'A' && each <= 'Z') each = static_cast<char>(each - 'A' + 'a');
    }
    if (name.empty() || name == "efi") return Found{true, true, 0};
    if (name == "imc.hiv") return Found{true, false, kHiveBytes};
    if (name == "efi/small") return Found{true, false, 100};
    if (name == "efi/empty") return Found{true, false, 0};
    return Found{};
  }

  Bytes Version(std::span<const std::byte> message) {
    if (message.size() < 12 || NumberAt(message, 8, 4) != 0x00010000) return VersionAnswer(1);
    ready_ = true;
    return VersionAnswer(0);
  }

  Bytes Info(std::span<const std::byte> message) const {
    const auto found = Find(message.subspan(8));
    if (!found || !ready_) return InfoAnswer(3, 0, 0);
    if (!found->exists) return InfoAnswer(1, 0, 0);
    if (found->directory) return InfoAnswer(0, 1, 0);
    const bool rdma = rdma_bytes_min_ != 0 && found->bytes >= rdma_bytes_min_;
    return InfoAnswer(0, rdma ? 2 : 0, found->bytes);
  }

  // With a buffer that has room for all.
  Bytes Rdma(std::span<const std::byte> message) const {
    if (message.size() < 32 || !ready_ || rdma_bytes_min_ == 0) return RdmaAnswer(3, 0);
    const auto found = Find(message.subspan(32));
    const uint64_t count = NumberAt(message, 12, 4);
    const uint64_t offset = NumberAt(message, 16, 8);
    if (!found) return RdmaAnswer(3, 0);
    if (!found->exists) return RdmaAnswer(1, 0);
    if (found->directory) return RdmaAnswer(3, 0);
    if (count == 0) return RdmaAnswer(0, 0);
    if (offset >= found->bytes) return RdmaAnswer(2, 0);
    return RdmaAnswer(0, static_cast<uint32_t>(std::min<uint64_t>(count, found->bytes - offset)));
  }

  Bytes Read(std::span<const std::byte> message) const {
    if (message.size() < 20) return ReadAnswerBytes(3);
    const auto found = Find(message.subspan(20));
    const uint64_t count = NumberAt(message, 8, 4);
    const uint64_t offset = NumberAt(message, 12, 8);
    if (!found || !ready_ || count > 12'276) return ReadAnswerBytes(3);
    if (!found->exists) return ReadAnswerBytes(1);
    if (found->directory) return ReadAnswerBytes(3);
    if (count == 0) return ReadAnswerBytes(0);
    if (offset >= found->bytes) return ReadAnswerBytes(2);
    // All files hold the beginning of one pattern.
    const auto from = Tree::hive_bytes().begin() + static_cast<std::ptrdiff_t>(offset);
    const uint64_t bytes = std::min<uint64_t>(count, found->bytes - offset);
    return ReadAnswerBytes(0, Bytes(from, from + static_cast<std::ptrdiff_t>(bytes)));
  }

  const uint64_t rdma_bytes_min_;
  bool ready_ = false;
};

Bytes WholeAnswer(const Answer& answer) {
  if (const auto* response = std::get_if<Response>(&answer)) {
    return {response->bytes().begin(), response->bytes().end()};
  }
  if (const auto* rdma = std::get_if<RdmaRead>(&answer)) {
    Require(rdma->byte_count >= 1 && rdma->byte_count <= rdma->requested_bytes &&
                rdma->offset + rdma->byte_count <= rdma->file->size_bytes(),
            "all of an RDMA read lies within the file");
    return RdmaAnswer(0, rdma->byte_count);
  }
  const FileRead& read = std::get<FileRead>(answer);
  Require(read.byte_count >= 1 && read.byte_count <= 12'276, "a read has bytes, and fits");
  const Response header = Response::ReadFile(FileStatus::kSuccess);
  const Bytes whole(header.bytes().begin(), header.bytes().end());
  Bytes data(read.byte_count);
  const iovec piece{data.data(), data.size()};
  const auto now = read.file->ReadNow(read.offset, std::span(&piece, 1));
  Require(now.ok() && *now == read.byte_count, "all of a read lies within the file");
  return Join({whole, data});
}

Bytes TakePath(FuzzInput& input) {
  static constexpr std::array<std::u16string_view, 8> kPaths = {
      u"imc.hiv", u"\\IMC.HIV", u"efi\\small", u"EFI/./Empty", u"\\", u"efi", u"..\\x", u"missing"};
  const uint32_t choice = input.Below(16);
  if (choice < kPaths.size()) return Utf16(kPaths[choice]);
  const auto bytes = input.Bytes(choice == 15 ? input.U16() : input.U8());
  return {bytes.begin(), bytes.end()};
}

Bytes TakeMessage(FuzzInput& input) {
  switch (input.Below(8)) {
    case 0:
      return VersionBytes(input.OneIn(2) ? 0x00010000 : input.U32());
    case 1:
      return Join({Header(3), TakePath(input)});
    case 2:
    case 3:
      return Join(
          {Header(5), LittleEndian(input.U16(), 4), LittleEndian(input.U16(), 8), TakePath(input)});
    case 4:
      return Join(
          {Header(5), LittleEndian(input.U32(), 4), LittleEndian(input.U64(), 8), TakePath(input)});
    case 5:
      return Join({Header(7), LittleEndian(1, 4), LittleEndian(input.U32(), 4),
                   LittleEndian(input.U64(), 8), LittleEndian(0, 8), TakePath(input)});
    case 6: {  // of any size
      Bytes message = Join({LittleEndian(input.U8() % 10u, 4), LittleEndian(input.U32(), 4)});
      message.resize(input.U16() % 12'400u, static_cast<std::byte>(input.U8()));
      return message;
    }
    default: {
      const auto bytes = input.Bytes(input.U8());
      return {bytes.begin(), bytes.end()};
    }
  }
}

void CheckCounters(const VmbfsDeviceStatus& status, uint64_t answers) {
  const uint64_t requests =
      status.version_requests + status.info_requests + status.read_requests + status.rdma_requests;
  Require(requests == answers, "every answered request is counted once");
  Require(status.bad_requests + status.not_found <= answers && status.host_errors == 0,
          "so are refusals");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto tree = std::make_shared<const Tree>();
  FuzzInput input(data, size);
  // Off, for some files, for all but the empty one.
  constexpr std::array<uint64_t, 4> kRdmaBytesMin = {0, 0, 1000, 1};
  const uint64_t rdma_bytes_min = kRdmaBytesMin[input.U8() % kRdmaBytesMin.size()];
  VmbfsDeviceStatus status;
  Session session(tree, rdma_bytes_min, status);
  Model model(rdma_bytes_min);
  for (uint64_t answers = 0; answers < kMessagesMax && !input.empty();) {
    const Bytes message = TakeMessage(input);
    const auto answer = session.Handle(message);
    const auto expected = model.AnswerTo(message);
    Require(answer.ok() == expected.has_value(), "a fault where no legal answer exists only");
    if (!answer.ok()) break;
    Require(WholeAnswer(*answer) == *expected, "the answer is the table's, byte for byte");
    CheckCounters(status, ++answers);
  }
  return 0;
}

}  // namespace vmbfs
