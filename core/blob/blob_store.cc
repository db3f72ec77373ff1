#include "core/blob/blob_store.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace vmbfs {
namespace {

namespace fs = std::filesystem;

constexpr size_t kSha256Bytes = 32;
constexpr char kIncoming[] = "incoming";
constexpr size_t kCheckBytes = 128 << 10;

absl::Status SystemError(int error, std::string_view what, const fs::path& path) {
  const std::string message = absl::StrCat(std::string(what), " ", path.string(), ": ",
                                           std::generic_category().message(error));
  if (error == ENOSPC || error == EDQUOT) {
    return absl::ResourceExhaustedError(absl::StrCat(message, "; make room and try again"));
  }
  return absl::InternalError(message);
}

std::string Hex(const std::array<unsigned char, kSha256Bytes>& digest) {
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest.data()), digest.size()));
}

absl::Status MakeFolder(const fs::path& folder) {
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    return SystemError(errno, "cannot make the folder", folder);
  }
  return absl::OkStatus();
}

absl::Status SyncFolder(const fs::path& folder) {
  const hyperv::UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) return SystemError(errno, "cannot sync the folder", folder);
  return absl::OkStatus();
}

// SHA-256 over bytes that come in pieces.
class Hasher {
 public:
  Hasher() : context_(EVP_MD_CTX_new()) {
    // Either fails only when memory is out, which ends the process elsewhere too.
    if (context_ == nullptr || EVP_DigestInit_ex(context_, EVP_sha256(), nullptr) != 1) abort();
  }
  ~Hasher() { EVP_MD_CTX_free(context_); }
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;

  void Add(std::span<const std::byte> bytes) {
    if (EVP_DigestUpdate(context_, bytes.data(), bytes.size()) != 1) abort();
  }

  std::string Finish() {
    std::array<unsigned char, kSha256Bytes> digest;
    if (EVP_DigestFinal_ex(context_, digest.data(), nullptr) != 1) abort();
    return Hex(digest);
  }

 private:
  EVP_MD_CTX* const context_;
};

// Whether the file has the size and the bytes that the digest says.
bool HoldsBytes(const fs::path& path, const BlobInfo& info) {
  const hyperv::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat existing{};
  if (!fd || ::fstat(fd.get(), &existing) != 0 || !S_ISREG(existing.st_mode) ||
      static_cast<uint64_t>(existing.st_size) != info.size_bytes) {
    return false;
  }
  Hasher hasher;
  std::vector<std::byte> buffer(kCheckBytes);
  while (true) {
    const ssize_t count = ::read(fd.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    if (count == 0) return hasher.Finish() == info.sha256;
    hasher.Add(std::span(buffer).first(static_cast<size_t>(count)));
  }
}

class FileBlobWriter final : public BlobWriter {
 public:
  FileBlobWriter(fs::path folder, fs::path temporary, hyperv::UniqueFd fd, uint64_t bytes_max)
      : folder_(std::move(folder)),
        temporary_(std::move(temporary)),
        fd_(std::move(fd)),
        bytes_max_(bytes_max) {}

  ~FileBlobWriter() override { Discard(); }

  absl::Status Write(std::span<const std::byte> bytes) override {
    if (!failure_.ok()) return failure_;
    failure_ = WriteAll(bytes);
    return failure_;
  }

  absl::StatusOr<BlobInfo> Finish(const std::optional<std::string>& expected_sha256) override {
    if (!failure_.ok()) return failure_;
    failure_ = absl::FailedPreconditionError("the upload has ended");
    BlobInfo info{.sha256 = hasher_.Finish(), .size_bytes = size_bytes_};
    if (expected_sha256.has_value() && *expected_sha256 != info.sha256) {
      Discard();
      return absl::InvalidArgumentError(absl::StrCat(
          "the bytes have SHA-256 ", info.sha256, ", not the expected ",
          absl::CHexEscape(expected_sha256->substr(0, 2 * kSha256Bytes)), "; send them again"));
    }
    if (absl::Status status = MoveIn(info); !status.ok()) {
      Discard();
      return status;
    }
    return info;
  }

 private:
  absl::Status WriteAll(std::span<const std::byte> bytes) {
    if (bytes.size() > bytes_max_ - size_bytes_) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the upload is larger than the ", bytes_max_, " bytes it may have"));
    }
    hasher_.Add(bytes);
    size_bytes_ += bytes.size();
    while (!bytes.empty()) {
      const ssize_t count = ::write(fd_.get(), bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return SystemError(errno, "cannot write", temporary_);
      bytes = bytes.subspan(static_cast<size_t>(count));
    }
    return absl::OkStatus();
  }

  // Gives the synced file its final name, and makes the name durable.
  absl::Status MoveIn(const BlobInfo& info) {
    if (::fchmod(fd_.get(), 0400) != 0 || ::fsync(fd_.get()) != 0) {
      return SystemError(errno, "cannot sync", temporary_);
    }
    const fs::path shard = folder_ / info.sha256.substr(0, 2);
    const fs::path final_path = shard / info.sha256;
    if (absl::Status status = MakeFolder(shard); !status.ok()) return status;
    if (HoldsBytes(final_path, info)) {
      Discard();
    } else if (::rename(temporary_.c_str(), final_path.c_str()) == 0) {
      temporary_.clear();
    } else {
      return SystemError(errno, "cannot move an upload to", final_path);
    }
    // Also for a file that was there: who moved it in may not have come to this.
    if (absl::Status status = SyncFolder(shard); !status.ok()) return status;
    return SyncFolder(folder_);
  }

  void Discard() {
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
    temporary_.clear();
    fd_.reset();
  }

  const fs::path folder_;
  fs::path temporary_;  // empty once it is no longer ours
  hyperv::UniqueFd fd_;
  const uint64_t bytes_max_;
  uint64_t size_bytes_ = 0;
  Hasher hasher_;
  absl::Status failure_;  // of an earlier call: the upload is over
};

class FileBlobStore final : public BlobStore {
 public:
  explicit FileBlobStore(fs::path folder) : folder_(std::move(folder)) {}

  absl::StatusOr<std::unique_ptr<BlobWriter>> Begin(uint64_t bytes_max) override {
    fs::path path = folder_ / kIncoming / std::to_string(next_upload_.fetch_add(1));
    hyperv::UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!fd) return SystemError(errno, "cannot begin an upload at", path);
    return std::make_unique<FileBlobWriter>(folder_, std::move(path), std::move(fd), bytes_max);
  }

  absl::StatusOr<BlobInfo> Find(const std::string& sha256) override {
    const auto fd = Open(sha256);
    if (!fd.ok()) return fd.status();
    const auto size_bytes = SizeBytes(*fd, sha256);
    if (!size_bytes.ok()) return size_bytes.status();
    return BlobInfo{.sha256 = sha256, .size_bytes = *size_bytes};
  }

  absl::StatusOr<hyperv::UniqueFd> OpenForRead(const std::string& sha256,
                                               uint64_t size_bytes) override {
    auto fd = Open(sha256);
    if (!fd.ok()) return fd.status();
    const auto found_bytes = SizeBytes(*fd, sha256);
    if (!found_bytes.ok()) return found_bytes.status();
    if (*found_bytes != size_bytes) {
      return absl::DataLossError(absl::StrCat("blob ", sha256, " has ", *found_bytes,
                                              " bytes on disk, not ", size_bytes,
                                              "; upload it again"));
    }
    return fd;
  }

 private:
  absl::StatusOr<hyperv::UniqueFd> Open(const std::string& sha256) const {
    if (!IsSha256Hex(sha256)) {
      return absl::InvalidArgumentError("a digest is 64 lower-case hexadecimal digits");
    }
    const fs::path path = folder_ / sha256.substr(0, 2) / sha256;
    hyperv::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (fd) return fd;
    if (errno == ENOENT) {
      return absl::NotFoundError(absl::StrCat("no blob ", sha256, "; upload it first"));
    }
    return SystemError(errno, "cannot open", path);
  }

  static absl::StatusOr<uint64_t> SizeBytes(const hyperv::UniqueFd& fd, const std::string& sha256) {
    struct stat info{};
    if (::fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode)) {
      return absl::InternalError(absl::StrCat("blob ", sha256, " is not a regular file on disk"));
    }
    return static_cast<uint64_t>(info.st_size);
  }

  const fs::path folder_;
  std::atomic<uint64_t> next_upload_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<BlobStore>> BlobStore::Open(const fs::path& folder) {
  for (const fs::path& made : {folder, folder / kIncoming}) {
    if (absl::Status status = MakeFolder(made); !status.ok()) return status;
  }
  std::error_code error;
  fs::directory_iterator entries(folder / kIncoming, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    fs::remove_all(entries->path(), error);
    if (error) break;
  }
  if (error) return SystemError(error.value(), "cannot clear", folder / kIncoming);
  for (const fs::path& changed : {folder, fs::absolute(folder).parent_path()}) {
    if (absl::Status status = SyncFolder(changed); !status.ok()) return status;
  }
  return std::make_unique<FileBlobStore>(folder);
}

bool IsSha256Hex(std::string_view text) {
  return text.size() == 2 * kSha256Bytes && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

std::string Sha256Hex(std::span<const std::byte> bytes) {
  Hasher hasher;
  hasher.Add(bytes);
  return hasher.Finish();
}

}  // namespace vmbfs
